//! Writes into a folder what packages install beside the program: `ringlookupd.1` for man, and completions for bash
//! (`ringlookupd.bash`), zsh (`_ringlookupd`) and fish (`ringlookupd.fish`). All are written from the program's own
//! table of flags.
//!
//!     cargo run -q -p ringlookupd-manual -- DIR

mod bash;
mod fish;
mod man;
mod reference;
mod zsh;

use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, fs, io};

use ringlookupd::options::{FlagHelp, Group, flags};

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    let (Some(folder), None) = (args.next(), args.next()) else {
        eprintln!("usage: ringlookupd-manual DIR");
        return ExitCode::from(2);
    };
    match write(&PathBuf::from(folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringlookupd-manual: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &PathBuf) -> io::Result<()> {
    let flags: Vec<_> = flags().chain([help()]).collect();
    fs::create_dir_all(folder)?;
    fs::write(folder.join("ringlookupd.1"), man::page(&flags))?;
    fs::write(folder.join("ringlookupd.bash"), bash::completion(&flags))?;
    fs::write(folder.join("_ringlookupd"), zsh::completion(&flags))?;
    fs::write(folder.join("ringlookupd.fish"), fish::completion(&flags))
}

/// The flag that the table has not, because nothing is set by it.
fn help() -> FlagHelp {
    FlagHelp {
        name: "help",
        group: Group::General,
        argument: "",
        values: Vec::new(),
        meaning: "print the flags with their defaults and exit",
        default: None,
        default_in_words: "",
    }
}
