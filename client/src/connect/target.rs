//! The target of a mount, an account on a server: `user@host[:port]`, `user@[v6]:port`.
//!
//! The text is only parsed; nothing is looked up.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use rustls::pki_types::ServerName;
use xfer_protocol::shown::shown;
use xfer_protocol::user;

/// The port of a server unless another is given.
const PORT_DEFAULT: u16 = 33_000;

/// The account to log in to, and its server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// The account's name.
    pub user: String,
    /// The host's name or address; an IPv6 address without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// The reason why a text names no target.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TargetError {
    /// There is no `user@`.
    #[error("'{0}' has no user name; write USER@HOST[:PORT]")]
    NoUser(String),
    /// There is a name that may be a user's, and nothing else.
    #[error("'{0}' has no host; write USER@HOST[:PORT], as in {0}@server.example.org")]
    NoHost(String),
    /// No account can have this name.
    #[error("'{0}' cannot be a user name: {rule}", rule = user::RULE)]
    User(String),
    /// The text before the `@` looks like a user's name in capitals.
    #[error("user names have no capitals; did you mean {0}?")]
    Capitals(String),
    /// The text before the `@` looks like a name and a password.
    #[error(
        "a password cannot be given on the command line, where others can see it; write \
         {0} and type the password when asked, or give --password-file FILE"
    )]
    Password(String),
    /// A host's name that is not ASCII.
    #[error(
        "the host name '{0}' has letters beyond ASCII; write its ASCII form, which begins with \
         xn-- (`idn2 {0}` prints it)"
    )]
    International(String),
    /// There is no host, or the text in its place can't be one.
    #[error("'{0}' is not a host name or address; write USER@HOST[:PORT]")]
    Host(String),
    /// An IPv6 address without brackets, where the port would be ambiguous.
    #[error("write the IPv6 address in brackets: {user}@[{address}] or {user}@[{address}]:PORT")]
    Brackets {
        /// The user.
        user: String,
        /// The text that looks like an address.
        address: String,
    },
    /// There is a colon at the end, as before a path.
    #[error("'{text}' ends with a colon, as if a path followed; write {account}")]
    Colon {
        /// The text.
        text: String,
        /// The account without the colon.
        account: String,
    },
    /// A directory stands where the port would, or after it, as other programs have it.
    #[error("an account is mounted whole, not a directory of it; write {0}")]
    Directory(String),
    /// The port is not a number from 1 to 65535.
    #[error(
        "'{0}' is not a port, a number from 1 to 65535; an account is mounted whole, without a path"
    )]
    Port(String),
}

impl Target {
    /// `host:port`, as in the known hosts file and in messages.
    pub fn endpoint(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The name in a certificate for this host. The zone of a link-local address is not part of it,
    /// since it has a meaning on this machine only.
    pub(super) fn server_name(&self) -> Option<ServerName<'static>> {
        let host = self.host.split('%').next().unwrap_or(&self.host);
        ServerName::try_from(host.to_owned()).ok()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, self.endpoint())
    }
}

impl FromStr for Target {
    type Err = TargetError;

    /// Splits at the last `@`: a password before it may contain one, and must not be taken for a
    /// host.
    fn from_str(text: &str) -> Result<Target, TargetError> {
        let (user, endpoint) = text.rsplit_once('@').ok_or_else(|| without_at(text))?;
        if user.is_empty() {
            return Err(TargetError::NoUser(shown(text)));
        }
        check_user(user, endpoint)?;
        let (host, port) = split_port(user, endpoint)?;
        if let Some(port) = port {
            check_path(text, port)?;
        }
        let port = port.map_or(Ok(PORT_DEFAULT), parse_port)?;
        let target = Target { user: user.to_owned(), host: host.to_ascii_lowercase(), port };
        match target.server_name() {
            Some(_) => Ok(target),
            None if !host.is_ascii() => Err(TargetError::International(shown(host))),
            None => Err(TargetError::Host(shown(host))),
        }
    }
}

/// What is wrong with a text without an `@`: only hosts have a port, and most have a dot.
fn without_at(text: &str) -> TargetError {
    match user::parse(text).is_some() && !text.contains('.') {
        true => TargetError::NoHost(shown(text)),
        false => TargetError::NoUser(shown(text)),
    }
}

/// Refuses a path in the place of the port, or after it. `rest` is all after the host and its colon.
fn check_path(text: &str, rest: &str) -> Result<(), TargetError> {
    let (port, path) = rest.split_once(':').map_or((rest, None), |(port, path)| (port, Some(path)));
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_path = port.is_empty() || port.starts_with('~') || port.contains('/');
    if path.is_none() && !is_path {
        return Ok(());
    }
    let before = text.strip_suffix(rest).unwrap_or(text);
    let account = match is_number {
        true => shown(&format!("{before}{port}")),
        false => shown(before.trim_end_matches(':')),
    };
    match path.unwrap_or(port) {
        "" => Err(TargetError::Colon { text: shown(text), account }),
        _ => Err(TargetError::Directory(account)),
    }
}

/// Refuses a name that no account can have, before a server counts it as a wrong password.
fn check_user(user: &str, endpoint: &str) -> Result<(), TargetError> {
    if user::parse(user).is_some() {
        return Ok(());
    }
    let at_endpoint = |name: &str| format!("{name}@{}", shown(endpoint));
    let lower = user.to_ascii_lowercase();
    match user.split_once(':') {
        Some((name, _)) if user::parse(name).is_some() => {
            Err(TargetError::Password(at_endpoint(name)))
        }
        _ if user::parse(&lower).is_some() => Err(TargetError::Capitals(at_endpoint(&lower))),
        _ => Err(TargetError::User(shown(user))),
    }
}

fn split_port<'a>(
    user: &str,
    endpoint: &'a str,
) -> Result<(&'a str, Option<&'a str>), TargetError> {
    let refused = || TargetError::Host(shown(endpoint));
    if let Some(bracketed) = endpoint.strip_prefix('[') {
        let (address, rest) = bracketed.split_once(']').ok_or_else(refused)?;
        let plain = address.split('%').next().unwrap_or(address);
        plain.parse::<Ipv6Addr>().map_err(|_| refused())?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((address, Some(port))),
            None if rest.is_empty() => Ok((address, None)),
            None => Err(refused()),
        };
    }
    if is_ipv6_like(endpoint) {
        return Err(TargetError::Brackets { user: shown(user), address: shown(endpoint) });
    }
    match endpoint.split_once(':') {
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((endpoint, None)),
    }
}

/// Whether a text looks like an IPv6 address, perhaps with a port: one with fewer than seven colons has
/// two of them side by side.
fn is_ipv6_like(text: &str) -> bool {
    let address = text.split('%').next().unwrap_or(text);
    let is_of_it = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    address.bytes().all(is_of_it)
        && (address.contains("::") || address.bytes().filter(|byte| *byte == b':').count() >= 7)
}

fn parse_port(text: &str) -> Result<u16, TargetError> {
    match text.parse() {
        Ok(0) | Err(_) => Err(TargetError::Port(shown(text))),
        Ok(port) => Ok(port),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(text: &str, user: &str, host: &str, port: u16, endpoint: &str) {
        let target: Target = text.parse().unwrap();
        let expected = Target { user: user.to_owned(), host: host.to_owned(), port };
        assert_eq!(target, expected);
        assert_eq!(target.endpoint(), endpoint);
        assert_eq!(target.to_string().parse::<Target>().unwrap(), target);
    }

    fn check_refused(text: &str, part: &str) {
        let error = text.parse::<Target>().unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }

    #[test]
    fn names_and_addresses_are_read() {
        check("alice@host", "alice", "host", 33_000, "host:33000");
        check(
            "alice@Files.Example.org:44",
            "alice",
            "files.example.org",
            44,
            "files.example.org:44",
        );
        check("a.b_c-4@10.0.0.1", "a.b_c-4", "10.0.0.1", 33_000, "10.0.0.1:33000");
        check("alice@[::1]", "alice", "::1", 33_000, "[::1]:33000");
        check("alice@[fe80::1%eth0]:9", "alice", "fe80::1%eth0", 9, "[fe80::1%eth0]:9");
    }

    #[test]
    fn what_is_wrong_is_said() {
        check_refused("alice", "'alice' has no host; write USER@HOST[:PORT], as in alice@");
        check_refused("host.example.org", "has no user name");
        check_refused("host:1", "has no user name");
        check_refused("Alice", "has no user name");
        check_refused("@host", "has no user name");
        check_refused("a/b@host", "cannot be a user name");
        check_refused(&format!("{}@host", "x".repeat(65)), "cannot be a user name");
        check_refused("a@b.c@10.0.0.1", "'a@b.c' cannot be a user name");
        check_refused("bücher@host", "'bücher' cannot be a user name");
        check_refused("a\u{202e}b@host", "'a\\u{202e}b' cannot be a user name");
        check_refused("Alice@host:1", "did you mean alice@host:1?");
        check_refused("alice@", "is not a host name");
        check_refused("alice@ho st", "is not a host name");
        check_refused("alice@::1", "alice@[::1]");
        check_refused("alice@[::1", "is not a host name");
        check_refused("alice@[host]:1", "is not a host name");
        check_refused("alice@[::1]7", "is not a host name");
        check_refused("alice@host:port", "is not a port");
        check_refused("alice@host:0", "is not a port");
        check_refused("alice@host:65536", "is not a port");
    }

    #[test]
    fn a_directory_of_an_account_is_not_mounted_alone() {
        for path in ["/srv/data", "~", "~/data", "data/photos", "data:photos"] {
            let line = "mounted whole, not a directory of it; write alice@host";
            check_refused(&format!("alice@host:{path}"), line);
        }
        for host in ["host", "10.0.0.1", "[::1]"] {
            let line = format!("mounted whole, not a directory of it; write alice@{host}:44");
            check_refused(&format!("alice@{host}:44:photos"), &line);
        }
    }

    #[test]
    fn a_colon_too_many_is_said() {
        for account in ["alice@host", "alice@host:44", "alice@10.0.0.1:44", "alice@[::1]:44"] {
            let line =
                format!("'{account}:' ends with a colon, as if a path followed; write {account}");
            check_refused(&format!("{account}:"), &line);
        }
        check_refused("alice@[::1]:", "write alice@[::1]");
        check_refused("alice@2001:db8:0:0:0:0:0:1:44", "in brackets");
    }

    #[test]
    fn a_password_on_the_command_line_is_refused_and_not_said_again() {
        for text in ["bob:pw@host:1", "bob:p@w@host:1", "bob:@host:1"] {
            check_refused(text, "write bob@host:1 and type the password when asked");
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(!error.contains("pw") && !error.contains("p@w"), "{error}");
        }
    }

    #[test]
    fn a_host_beyond_ascii_is_said_as_it_was_typed() {
        check_refused("alice@bücher.example", "'bücher.example' has letters beyond ASCII");
        check_refused("alice@bücher.example:1", "`idn2 bücher.example`");
        check_refused("alice@host\u{202e}name", "'host\\u{202e}name' has letters");
        check(
            "alice@xn--bcher-kva.example",
            "alice",
            "xn--bcher-kva.example",
            33_000,
            "xn--bcher-kva.example:33000",
        );
    }
}
