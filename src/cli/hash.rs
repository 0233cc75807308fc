//! `turnstone credentials hash`: makes the line of a static user whose password is not stored.

use clap::Args;

use crate::auth::StoredKeys;
use crate::config::parse_realm;

use super::input::read_stdin;
use super::output::{CliError, Exit, Printer};

/// Make the line of a user for users-file, with keys in place of the password.
///
/// The password is read from standard input, one user a line as NAME:PASSWORD where no name is given. The keys are good in one realm
/// only: `# realm: NAME`, which is printed first, lets the server see that the file is for the right one.
#[derive(Args)]
#[command(after_help = "A key is as good as its password for whoever reads the file, but only in its realm.

turnstone credentials hash --realm example.org alice < password >> /etc/turnstone/users")]
pub(super) struct HashArgs {
    /// The realm, as in the configuration.
    #[arg(long, visible_alias = "in-realm", value_name = "NAME")]
    realm: String,

    /// Only the MD5 key, as coturn's turnadmin -k makes it: its users get no SHA-256, and neither does anybody else of their realm.
    #[arg(long)]
    md5: bool,

    /// The user's name.
    #[arg(value_name = "USER")]
    user: Option<String>,

    /// The same as USER.
    #[arg(long = "user", value_name = "NAME", conflicts_with = "user")]
    named: Option<String>,
}

pub(super) fn run(args: &HashArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let realm = parse_realm(&args.realm).map_err(|problem| CliError::usage(format!("--realm: {problem}")))?;
    let input = read_stdin().map_err(|error| CliError::usage(format!("cannot read the password: {error}")))?;
    let user = args.user.as_deref().or(args.named.as_deref());
    let mut lines = Vec::new();
    for (number, line) in input.lines().enumerate() {
        let given = user.map_or_else(|| line.split_once(':'), |name| Some((name, line)));
        let number = number + 1;
        let Some((name, password)) = given else {
            return Err(CliError::usage(format!("line {number} of standard input: expected NAME:PASSWORD")));
        };
        let name_is_fit = !name.contains([':', '\n']) && !name.starts_with('#');
        let keys = StoredKeys::of_password(name, &realm, password).ok().filter(|_| name_is_fit);
        let keys = if args.md5 { keys.and_then(|keys| StoredKeys::new(keys.md5().copied(), None)) } else { keys };
        let Some(keys) = keys else {
            let message = "the name or the password is empty or has a character that is not allowed";
            return Err(CliError::usage(format!("line {number} of standard input: {message}")));
        };
        lines.push(format!("{name}:{}", *keys.to_text()));
    }
    if lines.is_empty() || (user.is_some() && lines.len() > 1) {
        return Err(CliError::usage("expected one line with the password on standard input"));
    }
    printer.line(format_args!("# realm: {realm}"))?;
    lines.iter().try_for_each(|line| printer.line(line))?;
    Ok(Exit::Success)
}
