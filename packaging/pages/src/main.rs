//! Writes the manual pages and the completions of all programs: `xfer-pages DIRECTORY DATE`.
//!
//! Below DIRECTORY, each package has a directory with what it installs in `/usr/share`. DATE
//! (`YYYY-MM-DD`) is shown on the pages. Everything comes from the command lines as clap reads them,
//! so a new command or option has its page without further work; `programs` adds what they do not
//! say. Reading order: `programs`, `page`, `text`.

mod programs;
mod page;
mod text;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use clap::Command;
use clap_complete::{Shell, generate_to};
use programs::Program;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let [directory, date] = arguments.as_slice() else {
        eprintln!("xfer-pages: give a directory and a date; as in packaging/build-deb.sh");
        return ExitCode::from(2);
    };
    match write_all(Path::new(directory), &date.to_string_lossy()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xfer-pages: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_all(directory: &Path, date: &str) -> Result<(), Box<dyn Error>> {
    for program in programs::all() {
        let share = directory.join(program.package);
        for page in page::pages(&program, date)? {
            write(&share.join("man").join(&page.path), &page.text)?;
        }
        if program.completes {
            complete(&program, &share)?;
        }
    }
    Ok(())
}

/// Writes the completions to where Debian's shells look for those of packages.
fn complete(program: &Program, share: &Path) -> Result<(), Box<dyn Error>> {
    let name = program.command.get_name().to_owned();
    let places = [
        (Shell::Bash, "bash-completion/completions", name.clone()),
        (Shell::Zsh, "zsh/vendor-completions", format!("_{name}")),
        (Shell::Fish, "fish/vendor_completions.d", format!("{name}.fish")),
    ];
    for (shell, place, file) in places {
        let directory = share.join(place);
        fs::create_dir_all(&directory)?;
        let mut command = commands_first(program.command.clone());
        let written: PathBuf = generate_to(shell, &mut command, &name, &directory)?;
        fs::rename(written, directory.join(file))?;
    }
    Ok(())
}

/// The command without arguments where its own commands may stand: zsh would complete those arguments only,
/// for which there is nothing to propose.
fn commands_first(command: Command) -> Command {
    let command = command.mut_subcommands(commands_first);
    if !command.has_subcommands() || command.get_positionals().next().is_none() {
        return command;
    }
    let options = command.get_arguments().filter(|arg| !arg.is_positional()).cloned();
    let bare = Command::new(command.get_name().to_owned()).args(options);
    bare.about(command.get_about().cloned().unwrap_or_default())
        .subcommands(command.get_subcommands().cloned())
}

fn write(path: &Path, text: &str) -> Result<(), Box<dyn Error>> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()).into())
}
