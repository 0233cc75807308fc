//! Texts that somebody was to replace and has not: they may not become live secrets.

/// Words of published examples, without what separates them. Each is too long to be in a random secret by chance.
const EXAMPLES: &[&str] = &[
    "changeme",
    "changethis",
    "changeit",
    "replaceme",
    "replacethis",
    "replacewith",
    "yoursecret",
    "yourstatic",
    "yourauth",
    "yourshared",
    "yourturn",
    "yourpassword",
    "yourlong",
    "yourrandom",
    "yourstrong",
    "secrethere",
    "passwordhere",
    "keyhere",
    "staticauthsecret",
    "turnsecret",
    "coturnsecret",
    "mysecret",
    "somesecret",
    "supersecret",
    "verysecret",
    "placeholder",
    "example",
    "randomstring",
    "randomsecret",
    "longandcryptic",
    "inserthere",
    "insertyour",
    "enteryour",
    "putyour",
    "generatea",
    "generatewith",
    "xxxxxxxx",
];

/// What stands for a password where a sample shows how a user is written.
const SAMPLE_PASSWORDS: &[&str] =
    &["password", "password1", "password2", "secret", "pass", "passwd", "pwd", "key1", "key2"];

/// Whether the text is in the form of a template that nobody filled in: `${SECRET}`, `{{ secret }}`, `<secret>`, `%SECRET%`.
pub(super) fn is_template(text: &str) -> bool {
    let has_pair = |open: &str, close: &str| {
        text.split_once(open)
            .is_some_and(|(_, rest)| rest.split_once(close).is_some_and(|(inner, _)| !inner.is_empty()))
    };
    let upper = |inner: &str| {
        inner.starts_with(|c: char| c.is_ascii_uppercase())
            && inner.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
    };
    let whole = |open: &str, close: &str, is: &dyn Fn(&str) -> bool| {
        text.trim().strip_prefix(open).and_then(|rest| rest.strip_suffix(close)).is_some_and(is)
    };
    let words = |inner: &str| {
        inner.starts_with(|c: char| c.is_ascii_alphabetic())
            && inner.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.' | '\''))
    };
    has_pair("${", "}")
        || has_pair("$(", ")")
        || has_pair("{{", "}}")
        || has_pair("{%", "%}")
        || has_pair("<%", "%>")
        || has_pair("#{", "}")
        || whole("<", ">", &words)
        || whole("[", "]", &|inner| words(inner) && inner.contains(|c: char| c.is_ascii_alphabetic() && c > 'f'))
        || whole("$", "", &upper)
        || whole("%", "%", &upper)
        || whole("@", "@", &upper)
        || whole("__", "__", &upper)
}

/// Whether it is a secret or password that anybody can guess, because it is what examples have in its place.
pub(super) fn is_example(secret: &str) -> bool {
    let plain: String = secret.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    // A name in front of something random is no example.
    let digits = plain.chars().filter(char::is_ascii_digit).count();
    let has_more = |example: &&str| digits >= 4 && plain.len() - example.len() >= 16;
    let same = |text: &str| text.chars().skip(1).all(|c| text.starts_with(c));
    is_template(secret)
        || EXAMPLES.iter().any(|example| plain.contains(example) && !has_more(example))
        || SAMPLE_PASSWORDS.contains(&plain.as_str())
        || secret.len() >= 8 && same(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_of_every_kind_are_seen() {
        for text in [
            "${COTURN_SECRET}",
            "prefix-${X}",
            "$(detect-external-ip)",
            "{{ turn_secret }}",
            "{{turn_secret}}",
            "{% if x %}",
            "<secret>",
            "<your secret here>",
            "$TURN_SECRET",
            "%SECRET%",
            "@SECRET@",
            "__SECRET__",
            "[your-secret]",
            "<%= x %>",
        ] {
            assert!(is_template(text) && is_example(text), "{text}");
        }
        for text in [
            "",
            "$",
            "{}",
            "${}",
            "a<b>c",
            "<>",
            "%",
            "[::1]",
            "[fe80::1]",
            "[abcd]",
            "p@ss@",
            "$2b$10$abc",
            "__",
            "100%",
        ] {
            assert!(!is_template(text), "{text}");
        }
    }

    #[test]
    fn what_examples_have_for_a_secret_is_seen_and_random_texts_are_not() {
        for text in [
            "CHANGE_ME_TO_A_RANDOM_SECRET",
            "ChangeMe!",
            "your-secret-here",
            "YOUR_STATIC_SECRET",
            "static-auth-secret",
            "replace-this-secret",
            "aaaaaaaaaaaaaaaa",
            "password",
            "long-and-cryptic",
        ] {
            assert!(is_example(text), "{text}");
        }
        for text in [
            "0123456789abcdef0",
            "5c62f3a0d2b1e6c4f3a0d2b1e6c4f3a0",
            "correct horse battery staple",
            "Hk3+/x9Q==",
            "turnsecret-8f14e45fceea167a5a36dedd4bea2543",
            "aaaaaaa",
        ] {
            assert!(!is_example(text), "{text}");
        }
    }
}
