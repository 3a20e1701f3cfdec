//! The command line: its syntax, and how each outcome is reported.
//!
//! Every failure ends in one line on standard error and an exit code of its kind ([`Exit`]).

use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use xfer_protocol::message::Silence;
use xfer_protocol::size;
use xfer_store::DAYS_KEPT;
use xfer_store::embedded::{OlderDatabase, Serving};

use crate::figures::web::Place;
use crate::listener::identity::Identity;
use crate::program::control::{AdminSocket, Answer, Command as Question};
use crate::program::exit::{Exit, Failure};
use crate::program::log;
use crate::program::rights;
use crate::program::serve::{self, CertificateFiles};
use crate::program::store_location::StoreLocation;
use output::{Shape, print_line};
use running::Server;
use settings::{Read, Unread};
use user::User;

mod settings;
mod user;
mod sessions;
mod status;
mod screen;
mod trees;
mod check;
mod table;
mod running;
mod here;
mod secret;
mod output;

const EXIT_CODES: &str = "\
Exit codes:
   0  done                                   6  certificate or key missing or wrong
   1  anything else                          7  no such user
   2  the command line is wrong              8  the user exists
   3  the store cannot be read or written    9  no password, or not a good one
   4  another server has the store          10  the disk is full
   5  the address cannot be listened on     11  no server runs on the store
  12  the account is mounted                13  the account's quota is used up
  14  the directory cannot be used          15  some entries could not be moved
  16  the store was removed or replaced     17  the database is older than the contents
  18  the store has faults";

/// Keeps users' files for xfer-mount.
#[derive(Parser, Debug)]
#[command(name = "xfer-server", version, subcommand_required = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Where the server keeps everything
    #[arg(long, global = true, env = "XFER_STORE", value_name = "DIR", default_value = "/var/lib/xfer", value_parser = place())]
    store: StoreLocation,
    /// Where the server takes commands from those who may not enter the store: a path, or off
    #[arg(
        long,
        global = true,
        env = "XFER_ADMIN_SOCKET",
        value_name = "PATH",
        default_value = "off"
    )]
    admin_socket: AdminSocket,
    /// Read settings from this file: options of `run`, and the store [default: /etc/xfer/server.toml, if it is there]
    #[arg(long, global = true, env = "XFER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Reads where the store is.
fn place() -> impl TypedValueParser<Value = StoreLocation> {
    OsStringValueParser::new().try_map(|text| StoreLocation::parse(&text))
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Serve until SIGTERM or SIGINT
    Run(Run),
    /// Print the fingerprint of the server's own certificate
    Fingerprint,
    /// Manage users
    #[command(subcommand)]
    User(User),
    /// See and end sessions of the server that runs on the store
    #[command(subcommand)]
    Session(Session),
    /// See how the server that runs on the store is: sessions, rates, commits, what waits, space, lockouts
    Status {
        #[command(flatten)]
        shape: status::Shape,
    },
    /// Look through the store for what contradicts itself or is missing; changes nothing
    ///
    /// Beside a running server or without one. Prints a line for each fault, and ends with 18 if there
    /// are any.
    Check {
        /// Look at this user alone
        name: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Copy what is in a directory of this machine into a user's storage
    ///
    /// Beside a running server or without one, but not while the user is mounted. One that was
    /// interrupted goes on when it is run again.
    Import {
        /// The user's name
        name: String,
        /// The directory
        dir: PathBuf,
        /// The directory of the user's storage that it goes into; made if it is missing
        #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true)]
        into: OsString,
    },
    /// Copy all of a user's storage into a directory of this machine
    ///
    /// Beside a running server or without one, but not while the user is mounted. Set-id bits are
    /// not kept, and owners only as root.
    Export {
        /// The user's name
        name: String,
        /// The directory; made if it is missing
        dir: PathBuf,
        /// Go on in a directory that is not empty, and replace in it what differs
        #[arg(long)]
        force: bool,
    },
}

#[derive(Args, Debug)]
struct Run {
    /// Where to listen
    #[arg(long, env = "XFER_LISTEN", value_name = "ADDR:PORT", default_value = "[::]:33000", value_parser = address)]
    listen: SocketAddr,
    /// A certificate (chain) in PEM, instead of the server's own
    #[arg(long, env = "XFER_CERT", value_name = "F")]
    cert: Option<PathBuf>,
    /// The certificate's key in PEM
    #[arg(long, env = "XFER_KEY", value_name = "F")]
    key: Option<PathBuf>,
    /// For how many days what nothing refers to at the start is kept aside, in contents/lost
    #[arg(long, env = "XFER_KEEP_LOST", value_name = "DAYS", default_value_t = 7)]
    keep_lost: u16,
    /// For how many days removed users are kept, and can be restored
    #[arg(long, env = "XFER_KEEP_REMOVED", value_name = "DAYS", default_value_t = DAYS_KEPT)]
    keep_removed: u16,
    /// Start with a database that is older than the contents, as after restoring it
    #[arg(long)]
    accept_older_database: bool,
    /// Memory for names and attributes, of all sessions together
    #[arg(long, env = "XFER_TREE_SIZE", value_name = "SIZE", default_value = "64MiB", value_parser = tree_size)]
    tree_size: usize,
    /// How soon clients may take a silent connection for dead; those that ask for less get this
    #[arg(long, env = "XFER_SILENCE", value_name = "SECONDS", default_value = "3", value_parser = silence)]
    silence: Silence,
    /// Where metrics can be read, also /health and /ready: ADDR:PORT, off; public:ADDR:PORT if other machines
    /// can reach it, since nothing asks who reads them
    #[arg(long, env = "XFER_METRICS", value_name = "ADDR:PORT", default_value = "off")]
    metrics: Place,
    /// Print the settings in force, and where each comes from, instead of serving
    #[arg(long)]
    print_config: bool,
}

impl Run {
    fn config(
        self,
        store: StoreLocation,
        admin_socket: AdminSocket,
    ) -> Result<serve::Config, Failure> {
        let Run { listen, cert, key, accept_older_database, tree_size, silence, metrics, .. } =
            self;
        let files = match (cert, key) {
            (Some(cert), Some(key)) => Some(CertificateFiles { cert, key }),
            (None, None) => None,
            // Not clap's rule: the two may come from different places.
            (cert, _) => {
                let missing = if cert.is_some() { "--key" } else { "--cert" };
                return Err(Failure::new(
                    Exit::Usage,
                    format!("a certificate and its key go together; give {missing} too"),
                ));
            }
        };
        Ok(serve::Config {
            store,
            listen,
            files,
            tree_bytes: tree_size,
            silence,
            metrics,
            admin_socket,
            manage: user::carry_out,
            serving: Serving {
                older: match accept_older_database {
                    true => OlderDatabase::Accept,
                    false => OlderDatabase::Refuse,
                },
                keep_lost_days: self.keep_lost,
                keep_removed_days: self.keep_removed,
            },
        })
    }
}

/// Parses the size of a memory bound that a server can work with.
fn tree_size(text: &str) -> Result<usize, &'static str> {
    const MIN: usize = 16 << 20;
    let bytes = size::parse(text).and_then(|bytes| usize::try_from(bytes).ok());
    bytes.filter(|bytes| *bytes >= MIN).ok_or("give a size like 64MiB, of 16MiB at least")
}

/// Parses an address to listen on.
fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "give an address and a port, like [::]:33000 or 192.0.2.1:33000")
}

/// Parses the silence of a link.
fn silence(text: &str) -> Result<Silence, &'static str> {
    Silence::parse(text).ok_or("give a number of seconds from 3 to 10")
}

#[derive(Subcommand, Debug)]
enum Session {
    /// List the sessions that run
    List {
        /// Print JSON, with counts of what each session did
        #[arg(long)]
        json: bool,
    },
    /// End a user's session; what was sent is made durable first
    End {
        /// The user's name
        name: String,
    },
}

/// The command line as clap reads it, for manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program.
pub fn main() -> ExitCode {
    // No other user may read any file that the store will have.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let Err(failure) = run(std::env::args_os()) else { return ExitCode::SUCCESS };
    // If standard error is closed, the exit code still reports the failure.
    let severity = log::severity(tracing::Level::ERROR);
    let _ = writeln!(std::io::stderr(), "{severity}xfer-server: {failure}");
    ExitCode::from(failure.exit as u8)
}

fn run(arguments: impl Iterator<Item = OsString>) -> Result<(), Failure> {
    let arguments: Vec<OsString> = arguments.collect();
    let read = match Read::arguments(arguments.clone()) {
        Ok(read) => read,
        Err(Unread::Line(error)) => return explain(&error, &arguments),
        Err(Unread::Settings(failure)) => return Err(failure),
    };
    if matches!(&read.cli.command, Command::Run(run) if run.print_config) {
        return print_line(read.shown().trim_end());
    }
    let Cli { command, store, admin_socket, .. } = read.cli;
    rights::act_as_owner_of(&store.dir)?;
    let server = Server::new(&store.dir, admin_socket.clone());
    match command {
        Command::Run(run) => serve::run(&run.config(store, admin_socket)?),
        Command::Fingerprint => print_fingerprint(&store.dir, &server),
        Command::User(user) => user::run(&store, &server, user),
        Command::Session(Session::List { json }) => sessions::list(&server, Shape::of(json)),
        Command::Session(Session::End { name }) => sessions::end(&server, &name),
        Command::Status { shape } => status::show(&server, shape),
        Command::Check { name, json } => check::check(&store, name.as_deref(), Shape::of(json)),
        Command::Import { name, dir, into } => trees::import(&store, &name, &dir, &into),
        Command::Export { name, dir, force } => trees::export(&store, &name, &dir, force),
    }
}

/// Prints the fingerprint of the store's certificate. Whoever may not read that may be one who may ask the server.
fn print_fingerprint(store: &std::path::Path, server: &Server) -> Result<(), Failure> {
    let error = match Identity::load_from_store(store) {
        Ok(identity) => return print_line(&identity.fingerprint().to_string()),
        Err(error) => error,
    };
    if !error.is_permission_denied() {
        let line = format!(
            "the store has no certificate ({error}); start the server once, or check --store"
        );
        return Err(Failure::new(Exit::Tls, line));
    }
    match server.ask(&Question::Address) {
        Ok(Answer::Address { fingerprint, .. }) => print_line(&fingerprint.to_string()),
        Ok(_) | Err(_) => {
            let line = format!(
                "{error}; run it as root or as the owner of the store, or, while the server runs, as a member of xfer-admin"
            );
            Err(Failure::new(Exit::Tls, line))
        }
    }
}

/// Prints help as it is; turns every other message of clap into one line.
fn explain(error: &clap::Error, arguments: &[OsString]) -> Result<(), Failure> {
    let text = error.to_string();
    let help = format!("see: {} --help", meant(arguments.get(1..).unwrap_or_default()));
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => print_line(text.trim_end()),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            Err(Failure::new(Exit::Usage, format!("a command is missing; {help}")))
        }
        _ => Err(Failure::new(Exit::Usage, format!("{}; {help}", complaint(error)))),
    }
}

/// The command that a line is of, with those that it is part of.
fn meant(words: &[OsString]) -> String {
    let (mut command, mut name) = (&Cli::command(), "xfer-server".to_owned());
    for word in words {
        if let Some(part) = command.find_subcommand(word) {
            command = part;
            name = format!("{name} {}", part.get_name());
        }
    }
    name
}

/// The first paragraph of clap's message, as one line.
fn complaint(error: &clap::Error) -> String {
    let text = error.to_string();
    let first: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).collect();
    let first = first.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    xfer_terminal::plain(first.strip_prefix("error: ").unwrap_or(&first))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(arguments: &str, expected: Option<&str>) {
        let arguments = std::iter::once("xfer-server").chain(arguments.split_whitespace());
        let arguments: Vec<OsString> = arguments.map(OsString::from).collect();
        let failure = match Cli::try_parse_from(&arguments) {
            Ok(_) => None,
            Err(error) => Some(explain(&error, &arguments).unwrap_err()),
        };
        assert_eq!(failure.as_ref().map(|failure| failure.line.as_str()), expected);
        assert!(failure.is_none_or(|failure| failure.exit == Exit::Usage));
    }

    #[test]
    fn the_command_line_is_as_documented() {
        check("run", None);
        check("run --store /x --listen 127.0.0.1:1 --cert c --key k", None);
        check("run --keep-lost 30 --keep-removed 0 --accept-older-database", None);
        check("fingerprint --store /x", None);
        check("user add alice --password-file f --quota 10GiB --store /x", None);
        check("user add alice --invite --host files.example.org", None);
        check("user invite alice", None);
        check("user keys list alice --json", None);
        check("user keys revoke alice ab12", None);
        check("user keys revoke alice --all", None);
        check("user keys expire alice laptop --within 30", None);
        check("user passwd alice --password-stdin", None);
        check("user passwd alice --revoke-keys", None);
        check("user passwords alice off", None);
        check("user disable alice", None);
        check("user enable alice", None);
        check("user expire alice --within 30", None);
        check("user expire alice --within never", None);
        check("user remove alice", None);
        check("user remove alice --yes", None);
        check("user remove alice --now", None);
        check("user remove alice --now --number 3", None);
        check("user restore alice", None);
        check("user restore alice --as al --number 3", None);
        check("user list --removed --json", None);
        check("user list", None);
        check("user list --json", None);
        check("user quota alice", None);
        check("user quota alice --json", None);
        check("user quota alice --quota none", None);
        check("user quota alice --nodes 100 --inbox 1GiB --inbox-items none", None);
        check("session list --store /x", None);
        check("session list --json", None);
        check("session end alice", None);
        check("status --json --watch --store /x", None);
        check("check", None);
        check("check alice --json", None);
        check("import alice dir --into a/b --store /x", None);
        check("export alice dir --force", None);
    }

    #[test]
    fn what_is_wrong_with_it_is_said_in_one_line_that_names_the_help_of_that_command() {
        check("", Some("a command is missing; see: xfer-server --help"));
        check("user", Some("a command is missing; see: xfer-server user --help"));
        check("fly", Some("there is no command 'fly'; see: xfer-server --help"));
        check("session end", Some("missing: <NAME>; see: xfer-server session end --help"));
        check(
            "run --listen nowhere",
            Some(
                "invalid value 'nowhere' for '--listen <ADDR:PORT>': give an address and a port, like \
                 [::]:33000 or 192.0.2.1:33000; see: xfer-server run --help",
            ),
        );
        check(
            "user quota alice --quota much",
            Some(
                "invalid value 'much' for '--quota <SIZE>': give a size like 10GiB, or none; see: \
                 xfer-server user quota --help",
            ),
        );
        check(
            "user quota alice --inbox-items few",
            Some(
                "invalid value 'few' for '--inbox-items <N>': give a number, or none; see: xfer-server user \
                 quota --help",
            ),
        );
    }
}
