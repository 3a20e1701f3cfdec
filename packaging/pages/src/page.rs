//! One page for a program, and one for each of its commands.

use clap::builder::PossibleValue;
use clap::{Arg, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use crate::programs::{MOUNTING, Program};
use crate::text;

/// What each page begins with: how an apostrophe is written.
const PREAMBLE: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

/// A manual page.
pub struct Page {
    /// Its place below the directory of all pages.
    pub path: String,
    /// Its source.
    pub text: String,
}

/// All pages of a program.
///
/// # Errors
/// If a document does not have what the pages take from it.
pub fn pages(program: &Program, date: &str) -> Result<Vec<Page>, String> {
    let mut root = with_values(program.command.clone()).disable_help_subcommand(true);
    root.build();
    let mut writer = Writer { program, root: &root, date, pages: Vec::new() };
    writer.write(&root, &[])?;
    Ok(writer.pages)
}

/// The command with possible values in the texts of its arguments, where they take one line.
fn with_values(command: Command) -> Command {
    let command = command.mut_args(|arg: Arg| {
        let values = arg.get_possible_values();
        let names: Vec<_> = values.iter().map(PossibleValue::get_name).collect();
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        if names.is_empty() || !arg.get_action().takes_values() {
            return arg;
        }
        let is_said = names.iter().all(|name| help.contains(name));
        let said = if is_said { help } else { format!("{help} ({})", names.join(", ")) };
        arg.help(said).hide_possible_values(true)
    });
    command.mut_subcommands(with_values)
}

struct Writer<'a> {
    program: &'a Program,
    root: &'a Command,
    date: &'a str,
    pages: Vec<Page>,
}

impl Writer<'_> {
    /// Writes the page of a command and of all below it. `above` are the names of the pages of those
    /// that it belongs to.
    fn write(&mut self, command: &Command, above: &[String]) -> Result<(), String> {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
        let section = self.program.section;
        let text = format!("{PREAMBLE}{}", self.sections(command, &name, above)?);
        self.pages.push(Page { path: format!("man{section}/{name}.{section}"), text });
        let above = [above, &[name]].concat();
        for below in command.get_subcommands().filter(|command| !command.is_hide_set()) {
            self.write(below, &above)?;
        }
        Ok(())
    }

    fn sections(&self, command: &Command, name: &str, above: &[String]) -> Result<String, String> {
        let version = self.root.get_version().unwrap_or_default();
        let man = Man::new(command.clone())
            .title(name.to_uppercase())
            .section(self.program.section.to_string())
            .date(self.date)
            .source(format!("xfer {version}"))
            .manual("xfer");
        let mut out = String::new();
        out += &rendered(|to| man.render_title(to))?;
        out += &rendered(|to| man.render_name_section(to))?;
        let is_root = above.is_empty();
        out += &own(|roff| synopsis(roff, command))?;
        out += &own(|roff| self.describe(roff, command, is_root))?;
        if command.get_arguments().any(|arg| !arg.is_hide_set()) {
            out += &rendered(|to| man.render_options_section(to))?;
        }
        if command.get_subcommands().any(|command| !command.is_hide_set()) {
            out += &rendered(|to| man.render_subcommands_section(to))?;
        }
        if is_root && self.program.mounts {
            let mut taken = Ok(());
            out += &own(|roff| {
                roff.control("SH", ["MOUNT OPTIONS"]);
                taken = text::add_section(roff, MOUNTING, "Options");
            })?;
            taken.map_err(|error| format!("docs/MOUNTING.md: {error}"))?;
        }
        out += &own(|roff| self.exit_status(roff, is_root))?;
        if is_root {
            out += &own(|roff| self.surroundings(roff))?;
        }
        out += &own(|roff| self.see_also(roff, above))?;
        Ok(out)
    }

    fn describe(&self, roff: &mut Roff, command: &Command, is_root: bool) {
        roff.control("SH", ["DESCRIPTION"]);
        let about = command.get_long_about().or_else(|| command.get_about());
        let about = about.map(ToString::to_string).unwrap_or_default();
        let own = if is_root { self.program.description } else { &[] };
        let paragraphs = about.split("\n\n").chain(own.iter().copied());
        for (at, paragraph) in paragraphs.map(str::trim_end).enumerate() {
            if at > 0 {
                roff.control("PP", []);
            }
            let stop = if paragraph.ends_with('.') { "" } else { "." };
            text::add(roff, &format!("{}{stop}", paragraph.replace('\n', " ")));
        }
    }

    fn exit_status(&self, roff: &mut Roff, is_root: bool) {
        roff.control("SH", ["EXIT STATUS"]);
        let help = self.root.get_after_help().map(ToString::to_string).unwrap_or_default();
        let codes = text::exit_codes(&help);
        match (is_root, codes.is_empty()) {
            (true, false) => {
                let entries = codes.iter().map(|(code, meaning)| (format!("`{code}`"), meaning));
                text::add_list(roff, entries);
            }
            (true, true) => text::add(roff, self.program.exit_status),
            (false, _) => {
                let page = reference(self.root.get_name(), self.program.section);
                roff.text([roman("The exit codes are listed in "), page.0, page.1, roman(".")]);
            }
        }
    }

    /// The sections that only the page of the whole program has.
    fn surroundings(&self, roff: &mut Roff) {
        if !self.program.environment.is_empty() {
            roff.control("SH", ["ENVIRONMENT"]);
            text::add_list(roff, self.program.environment.iter().copied());
        }
        if !self.program.files.is_empty() {
            roff.control("SH", ["FILES"]);
            text::add_list(roff, self.program.files.iter().copied());
        }
        if !self.program.examples.is_empty() {
            roff.control("SH", ["EXAMPLES"]);
            text::add_list(roff, self.program.examples.iter().copied());
        }
    }

    fn see_also(&self, roff: &mut Roff, above: &[String]) {
        let section = self.program.section;
        let mut pages: Vec<(&str, u8)> =
            above.iter().map(|name| (name.as_str(), section)).collect();
        if above.is_empty() {
            pages.extend(self.program.see_also);
        }
        roff.control("SH", ["SEE ALSO"]);
        let mut line = Vec::new();
        for (name, section) in pages {
            if !line.is_empty() {
                line.push(roman(", "));
            }
            let (name, section) = reference(name, section);
            line.extend([name, section]);
        }
        roff.text(line);
    }
}

/// The name of a page as pages refer to each other.
fn reference(name: &str, section: u8) -> (Inline, Inline) {
    (bold(name), roman(format!("({section})")))
}

/// How the command is written, with all that it takes. clap's own leaves out what options take.
fn synopsis(roff: &mut Roff, command: &Command) {
    roff.control("SH", ["SYNOPSIS"]);
    let mut line = vec![bold(command.get_bin_name().unwrap_or_else(|| command.get_name()))];
    let is_shown =
        |arg: &&Arg| !arg.is_hide_set() && !matches!(arg.get_id().as_str(), "help" | "version");
    let options = command.get_arguments().filter(|arg| !arg.is_positional());
    for arg in options.filter(is_shown).chain(command.get_positionals().filter(is_shown)) {
        let (before, after) = if arg.is_required_set() { (" ", "") } else { (" [", "]") };
        line.push(roman(before));
        line.extend(written(arg));
        line.push(roman(after));
    }
    if command.has_subcommands() {
        line.extend([roman(" "), italic("COMMAND"), roman(" ...")]);
    }
    roff.text(line);
}

/// An argument as it is written: `-f|--foreground`, `--ca FILE`, or `MOUNTPOINT`.
fn written(arg: &Arg) -> Vec<Inline> {
    let short = arg.get_short().map(|short| format!("-{short}"));
    let names: Vec<_> =
        short.into_iter().chain(arg.get_long().map(|long| format!("--{long}"))).collect();
    let mut line = if names.is_empty() { Vec::new() } else { vec![bold(names.join("|"))] };
    if arg.is_positional() || arg.get_action().takes_values() {
        let values = arg.get_value_names().unwrap_or_default().join(" ");
        line.extend((!names.is_empty()).then(|| roman(" ")));
        line.push(italic(values));
    }
    line
}

/// A section of clap's.
fn rendered(
    render: impl Fn(&mut dyn std::io::Write) -> std::io::Result<()>,
) -> Result<String, String> {
    let mut bytes = Vec::new();
    render(&mut bytes).map_err(|error| error.to_string())?;
    let text = String::from_utf8(bytes).map_err(|error| error.to_string())?;
    Ok(text.strip_prefix(PREAMBLE).unwrap_or(&text).to_owned())
}

/// A section of ours.
fn own(write: impl FnOnce(&mut Roff)) -> Result<String, String> {
    let mut roff = Roff::new();
    write(&mut roff);
    rendered(|to| roff.to_writer(to))
}
