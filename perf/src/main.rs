fn main() -> std::process::ExitCode {
    lookupd_perf::run(std::env::args_os())
}
