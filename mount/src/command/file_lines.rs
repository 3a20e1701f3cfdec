//! The command lines of `xfer ls`, `xfer get` and so on: work on an account's files without a mount.
//!
//! Only their shape; `files` checks the values. Paths in the tree need not be UTF-8.

use std::ffi::OsString;

use clap::{ArgAction, Args, Subcommand};

use super::cli::{PasswordLine, ServerLine};

const PLACE: &str = "USER@HOST[:PORT]:PATH";

/// What `xfer` can do with the files of an account.
#[derive(Subcommand, Debug)]
pub enum FileCommand {
    /// List files and directories
    Ls(LsLine),
    /// Show everything about files and directories
    Stat(StatLine),
    /// Print files
    Cat(CatLine),
    /// Print the beginning of files, and fetch no more
    Head(HeadLine),
    /// Find files and directories below a directory
    Find(FindLine),
    /// Show how much space files and directories take up
    #[command(disable_help_flag = true)]
    Du(DuLine),
    /// Copy within the tree; no data is moved
    Cp(CpLine),
    /// Move or rename within the tree
    Mv(MvLine),
    /// Remove files and directories
    Rm(RmLine),
    /// Make directories
    Mkdir(MkdirLine),
    /// Fetch files and directories; one that broke off is resumed
    Get(GetLine),
    /// Store files and directories; one that broke off is resumed
    Put(PutLine),
    /// Send files and directories to other users of the server
    Send(SendLine),
    /// List what others have sent, or do something for each thing that arrives
    Inbox(InboxLine),
    /// List what was sent, with its state, and what waits to be sent; send something now, or hold it
    Outbox(OutboxLine),
}

/// How to get at an account's files.
#[derive(Args, Clone, Debug)]
pub struct AccessLine {
    /// Where the password comes from, if this machine has no key
    #[command(flatten)]
    pub password: PasswordLine,
    /// The server
    #[command(flatten)]
    pub server: ServerLine,
    /// Take the tree from a mount of the account elsewhere (it first sends what it has)
    #[arg(long)]
    pub takeover: bool,
}

/// `xfer ls`.
#[derive(Args, Debug)]
pub struct LsLine {
    /// What to list
    #[arg(value_name = PLACE, required = true)]
    pub places: Vec<OsString>,
    /// Show permissions, size and time of the last change too
    #[arg(short = 'l', long)]
    pub long: bool,
    /// Also names that begin with a dot
    #[arg(short = 'a', long)]
    pub all: bool,
    /// Also everything in the directories below
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The account
    #[command(flatten)]
    pub access: AccessLine,
}

/// `xfer stat`.
#[derive(Args, Debug)]
pub struct StatLine {
    /// What to show
    #[arg(value_name = PLACE, required = true)]
    pub places: Vec<OsString>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The account
    #[command(flatten)]
    pub access: AccessLine,
}

/// `xfer cat`.
#[derive(Args, Debug)]
pub struct CatLine {
    /// The files to print
    #[arg(value_name = PLACE, required = true)]
    pub places: Vec<OsString>,
    /// Only these bytes of each, counted from 0, both included; `A-` to the end
    #[arg(long, value_name = "A-B")]
    pub range: Option<String>,
    /// The account
    #[command(flatten)]
    pub access: AccessLine,
}

/// `xfer head`.
#[derive(Args, Debug)]
pub struct HeadLine {
    /// The files to print
    #[arg(value_name = PLACE, required = true)]
    pub places: Vec<OsString>,
    /// So many lines
    #[arg(short = 'n', long, value_name = "LINES", default_value_t = 10)]
    pub lines: u64,
    /// So many bytes instead
    #[arg(short = 'c', long, value_name = "BYTES", conflicts_with = "lines")]
    pub bytes: Option<String>,
    /// The account
    #[command(flatten)]
    pub access: AccessLine,
}

/// `xfer find`.
#[derive(Args, Debug)]
pub struct FindLine {
    /// Where to look
    #[arg(value_name = PLACE, required = true)]
    pub places: Vec<OsString>,
    /// Only names that match this pattern of `*`, `?` and `[...]`
    #[arg(long, value_name = "GLOB")]
    pub name: Option<OsString>,
    /// Only files, directories or symbolic links
    #[arg(long = "type", value_name = "f|d|l", value_parser = ["f", "d", "l"])]
    pub kind: Option<String>,
    /// End each path with a NUL instead of a line end
    #[arg(short = '0', long, conflicts_with = "json")]
    pub null: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The account
    #[command(flatten)]
    pub access: AccessLine,
}

/// `xfer du`.
#[derive(Args, Debug)]
pub struct DuLine {
    /// What to measure
    #[arg(value_name = PLACE, required = true)]
    pub places: Vec<OsString>,
    /// Only the sum of each
    #[arg(short = 's', long)]
    pub summarize: bool,
    /// In units that people read
    #[arg(short = 'h', long)]
    pub human_readable: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    pub help: Option<bool>,
    /// The account
    #[command(flatten)]
    pub access: AccessLine,
}

/// `xfer cp`.
#[derive(Args, Debug)]
#[command(override_usage = "xfer cp [OPTIONS] USER@HOST[:PORT]:PATH... USER@HOST[:PORT]:PATH")]
#[command(after_help = "For example: xfer cp -r alice@server.example.org:notes :copy")]
pub struct CpLine {
    /// What to copy, and the copy's name or the directory to copy into
    #[arg(value_name = PLACE, required = true, num_args = 2..)]
    pub places: Vec<OsString>,
    /// Directories with everything in them, too
    #[arg(short = 'r', long, short_alias = 'R')]
    pub recursive: bool,
    /// The account
    #[command(flatten)]
    pub access: AccessLine,
}

/// `xfer mv`.
#[derive(Args, Debug)]
#[command(override_usage = "xfer mv [OPTIONS] USER@HOST[:PORT]:PATH... USER@HOST[:PORT]:PATH")]
#[command(after_help = "For example: xfer mv alice@server.example.org:notes :old/notes")]
pub struct MvLine {
    /// What to move, and its new name or the directory to move it into
    #[arg(value_name = PLACE, required = true, num_args = 2..)]
    pub places: Vec<OsString>,
    /// The account
    #[command(flatten)]
    pub access: AccessLine,
}

/// `xfer rm`.
#[derive(Args, Debug)]
pub struct RmLine {
    /// What to remove
    #[arg(value_name = PLACE, required = true)]
    pub places: Vec<OsString>,
    /// Directories with everything in them, too
    #[arg(short = 'r', long, short_alias = 'R')]
    pub recursive: bool,
    /// Say nothing of what is not there
    #[arg(short = 'f', long)]
    pub force: bool,
    /// The account
    #[command(flatten)]
    pub access: AccessLine,
}

/// `xfer mkdir`.
#[derive(Args, Debug)]
pub struct MkdirLine {
    /// The directories to make
    #[arg(value_name = PLACE, required = true)]
    pub places: Vec<OsString>,
    /// Also those above them that are missing; say nothing of one that is there
    #[arg(short = 'p', long)]
    pub parents: bool,
    /// The account
    #[command(flatten)]
    pub access: AccessLine,
}

/// How files are transferred.
#[derive(Args, Debug)]
pub struct TransferLine {
    /// Directories with everything in them, too
    #[arg(short = 'r', long, short_alias = 'R')]
    pub recursive: bool,
    /// Compare contents: leave out files that have the same, whatever their times, and check each file that was
    /// transferred
    #[arg(long)]
    pub checksum: bool,
    /// Show no progress
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// The account
    #[command(flatten)]
    pub access: AccessLine,
}

/// `xfer get`.
#[derive(Args, Debug)]
#[command(override_usage = "xfer get [OPTIONS] USER@HOST[:PORT]:PATH... [FILE]")]
#[command(after_help = "For example: xfer get -r alice@server.example.org:photos .")]
pub struct GetLine {
    /// What to fetch; then a file or directory of this machine, `-` for standard output [default: .]
    #[arg(value_name = "PATH", required = true)]
    pub places: Vec<OsString>,
    /// How
    #[command(flatten)]
    pub transfer: TransferLine,
}

/// `xfer put`.
#[derive(Args, Debug)]
#[command(override_usage = "xfer put [OPTIONS] FILE... USER@HOST[:PORT]:PATH")]
#[command(after_help = "For example: xfer put -r photos alice@server.example.org:")]
pub struct PutLine {
    /// Files and directories of this machine, `-` for standard input; then where to store them
    #[arg(value_name = "FILE", required = true, num_args = 2..)]
    pub places: Vec<OsString>,
    /// How
    #[command(flatten)]
    pub transfer: TransferLine,
}

/// `xfer send`.
#[derive(Args, Debug)]
#[command(
    override_usage = "xfer send [OPTIONS] --to USER FILE|USER@HOST[:PORT]:PATH... USER@HOST[:PORT]"
)]
#[command(after_help = "For example: xfer send report.pdf alice@server.example.org --to bob")]
pub struct SendLine {
    /// Files and directories of this machine or in the tree; then the account that sends
    #[arg(value_name = "FILE", required = true, num_args = 2..)]
    pub places: Vec<OsString>,
    /// Who gets them; may be given several times
    #[arg(long, value_name = "USER", required = true)]
    pub to: Vec<String>,
    /// What they are to read with it
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub note: Option<String>,
    /// Show no progress
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// The account
    #[command(flatten)]
    pub access: AccessLine,
}

/// `xfer outbox`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct OutboxLine {
    /// What to do; without a command, the outbox is listed
    #[command(subcommand)]
    pub order: Option<OrderCommand>,
    /// The account
    #[arg(value_name = "USER@HOST[:PORT]", required = true)]
    pub account: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// How to get at it
    #[command(flatten)]
    pub access: AccessLine,
}

/// What `xfer outbox` can do.
#[derive(Subcommand, Debug)]
pub enum OrderCommand {
    /// Send files and directories of the outbox now, as they are, whatever holds them
    Send(OrderLine),
    /// Hold files and directories of the outbox that are not sent yet
    Cancel(OrderLine),
    /// Try again now to send everything that waits
    Retry(RetryLine),
}

/// `xfer outbox send` and `xfer outbox cancel`.
#[derive(Args, Debug)]
pub struct OrderLine {
    /// Files and directories in the outbox; or their paths in a mount on this machine
    #[arg(value_name = "USER@HOST[:PORT]:PATH|FILE", required = true)]
    pub places: Vec<OsString>,
    /// How to get at the account
    #[command(flatten)]
    pub access: AccessLine,
}

/// `xfer outbox retry`.
#[derive(Args, Debug)]
pub struct RetryLine {
    /// The account
    #[arg(value_name = "USER@HOST[:PORT]")]
    pub account: String,
    /// How to get at it
    #[command(flatten)]
    pub access: AccessLine,
}

/// `xfer inbox`.
#[derive(Args, Debug)]
#[command(after_help = INBOX_HELP)]
pub struct InboxLine {
    /// The account
    #[arg(value_name = "USER@HOST[:PORT]")]
    pub account: String,
    /// Do not end: go on with what arrives
    #[arg(short = 'f', long)]
    pub follow: bool,
    /// Run a command of the shell for each arrival, until it has succeeded once
    #[arg(long, value_name = "COMMAND")]
    pub exec: Option<OsString>,
    /// Show a notice on the desktop for each arrival, once
    #[arg(long)]
    pub notify: bool,
    /// Only through a mount on this machine; with --follow, wait for one
    #[arg(long, conflicts_with = "takeover")]
    pub mounted: bool,
    /// Print JSON; with --follow, --exec and --notify one object in each line
    #[arg(long)]
    pub json: bool,
    /// How to get at it
    #[command(flatten)]
    pub access: AccessLine,
}

/// What a command of `--exec` may rely on.
const INBOX_HELP: &str = "\
The command finds in its environment:
  XFER_FROM     who sent it
  XFER_NAME     its name in the inbox
  XFER_FILE     where it is, if the account is mounted on this machine
  XFER_PLACE    where it is for xfer: USER@HOST:PORT:PATH
  XFER_KIND     file or directory
  XFER_SIZE     its size in bytes
  XFER_SENT     when it was sent, in UTC as in RFC 3339
  XFER_NOTE     what the sender wrote to it with `xfer send --note`, if anything
  XFER_ACCOUNT  USER@HOST:PORT
The sender chooses the name and the note, so write \"$XFER_NAME\" with the quotes.";
