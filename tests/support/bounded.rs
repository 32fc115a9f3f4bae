//! Short commands of the program, none of which may hang a test.

use std::io::Read;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a command may take: far longer than any does.
const PATIENCE: Duration = Duration::from_secs(90);

/// Runs a command to its end and gives what it printed. One that does not end is killed, and fails the test with what
/// it had said by then.
pub(crate) fn output(command: &mut Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    // Read beside each other and beside the wait, since a full pipe would stop the process.
    let stdout = read(process.stdout.take().unwrap());
    let stderr = read(process.stderr.take().unwrap());
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = process.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > deadline {
            process.kill().unwrap();
            process.wait().unwrap();
            break None;
        }
        thread::sleep(Duration::from_millis(5));
    };
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    let said = String::from_utf8_lossy(&stderr);
    let status = status.unwrap_or_else(|| panic!("{command:?} did not end within {PATIENCE:?}: {said}"));
    Output {
        status,
        stdout,
        stderr,
    }
}

fn read(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut said = Vec::new();
        pipe.read_to_end(&mut said).unwrap();
        said
    })
}
