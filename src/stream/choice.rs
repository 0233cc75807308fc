//! Which of several certificates is for a client, by the server name that it asks for (SNI, RFC 6066 section 3). Knows nothing of TLS.

use crate::turn::server_names::ServerNames;

/// The numbers of certificates, by their names.
#[derive(Debug, Default)]
pub struct CertificateChoice {
    by_name: ServerNames<Vec<usize>>,
    default: Vec<usize>,
}

impl CertificateChoice {
    /// By the names of each. The first one, and those that share a name with it, are for clients that ask for no name, or for one that
    /// none of them is for.
    pub fn new(names: &[Vec<String>]) -> Self {
        let mut by_name: ServerNames<Vec<usize>> = ServerNames::default();
        for (number, names) in names.iter().enumerate() {
            for name in names {
                let numbers = by_name.entry(name).or_default();
                if numbers.last() != Some(&number) {
                    numbers.push(number);
                }
            }
        }
        let firsts = names.first().map(Vec::as_slice).unwrap_or_default();
        let is_beside = |(number, names): (usize, &Vec<String>)| {
            let shares = number == 0 || names.iter().any(|name| firsts.contains(name));
            shares.then_some(number)
        };
        Self { by_name, default: names.iter().enumerate().filter_map(is_beside).collect() }
    }

    /// Those that are for a client, in the order of the configuration: which of them it is depends on what kinds of key it knows.
    pub fn of(&self, server_name: Option<&str>) -> &[usize] {
        server_name.and_then(|name| self.by_name.get(name)).unwrap_or(&self.default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exact_name_goes_before_a_wildcard_and_the_first_is_for_all_others() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let choice = CertificateChoice::new(&[
            names(&["turn.a.example", "a.example", "turn.a.example"]),
            names(&["*.b.example"]),
            names(&["turn.a.example"]),
            names(&["turn.b.example"]),
        ]);
        for (asked, chosen) in [
            (Some("turn.a.example"), &[0, 2][..]),
            (Some("A.example"), &[0]),
            (Some("turn.b.example"), &[3]),
            (Some("other.b.example"), &[1]),
            (Some("elsewhere.example"), &[0, 2]),
            (None, &[0, 2]),
        ] {
            assert_eq!(choice.of(asked), chosen, "{asked:?}");
        }
        assert_eq!(CertificateChoice::new(&[]).of(None), &[] as &[usize]);
    }
}
