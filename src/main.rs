use std::io::{self, Write};
use std::process::ExitCode;

use ringlookupd::listen::Inherited;
use ringlookupd::log::Log;
use ringlookupd::options::{Invocation, Options};
use ringlookupd::server::Server;
use ringlookupd::version_lines;

// Not under a sanitizer, which knows nothing of memory that the system's allocator has not given.
#[cfg(not(sanitized))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before any thread starts.
    let inherited = Inherited::from_env();
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    // Not print!: a closed pipe (`-help | head -1`) is no reason to panic.
    let options = match Options::from_args(arguments.iter().cloned()) {
        Ok(Invocation::Run(options)) => options,
        Ok(Invocation::Print(text)) => {
            let _ = io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "nsqlookupd: {error}");
            return error.exit_code().into();
        }
    };
    let Ok((log, writer)) = Log::start(options.log()) else {
        let _ = writeln!(io::stderr(), "nsqlookupd: cannot start a thread");
        return ExitCode::FAILURE;
    };
    for line in version_lines() {
        log.info(format_args!("{line}"));
    }
    let end = Server::start(&options, arguments, inherited, &log).and_then(Server::run);
    if let Err(error) = &end {
        log.fatal(format_args!("failed to instantiate nsqlookupd - {error}"));
    }
    writer.close();
    if end.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
