//! Runs programs of drivers, for a bounded time and with a bounded answer.

use std::io::{self, Read as _};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use thiserror::Error;

/// How long a program may take. `nvidia-smi` without persistence mode loads the driver first, on large machines for
/// some seconds.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a program that is there told nothing.
#[derive(Debug, Error)]
pub(super) enum CommandError {
    #[error("{program} can't be run: {source}")]
    Start { program: String, source: io::Error },
    #[error("{program} did not end within {} seconds; is the driver stuck?", TIMEOUT.as_secs())]
    TooSlow { program: String },
    #[error("{program} printed more than {bytes_max} bytes")]
    TooLong { program: String, bytes_max: usize },
    #[error("{program} failed ({status}): {said}")]
    Failed {
        program: String,
        status: String,
        said: String,
    },
}

/// What a program prints on stdout; `None` where there is no such program.
pub(super) fn output(
    program: &str,
    arguments: &[&str],
    bytes_max: usize,
) -> Result<Option<String>, CommandError> {
    output_within(TIMEOUT, program, arguments, bytes_max)
}

fn output_within(
    timeout: Duration,
    program: &str,
    arguments: &[&str],
    bytes_max: usize,
) -> Result<Option<String>, CommandError> {
    let name = || program.to_owned();
    let failed = |source| CommandError::Start {
        program: name(),
        source,
    };
    let started = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match started {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        started => started.map_err(failed)?,
    };
    let stdout = child.stdout.take();
    let (sender, answer) = mpsc::sync_channel(1);
    // Reading has no timeout of its own. The thread ends with the program, whose end of the pipe closes then.
    let reader = std::thread::Builder::new().spawn(move || {
        let mut bytes = Vec::new();
        let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
        let read = stdout.map_or(Ok(0), |stdout| stdout.take(limit).read_to_end(&mut bytes));
        // Nobody waits any more where the time is up.
        let _ = sender.send(read.map(|_| bytes));
    });
    let bytes = match reader {
        Ok(_) => answer.recv_timeout(timeout),
        Err(error) => Ok(Err(error)),
    };
    // Where it still runs, it is of no use any more; where it is over, this does nothing.
    let _ = child.kill();
    let status = child.wait().map_err(failed)?;
    let bytes = bytes
        .map_err(|_| CommandError::TooSlow { program: name() })?
        .map_err(failed)?;
    if bytes.len() > bytes_max {
        return Err(CommandError::TooLong {
            program: name(),
            bytes_max,
        });
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    // A program that closed its stdout and was ended before it could end by itself has said all it had to say.
    if matches!(status.code(), Some(code) if code != 0) {
        return Err(CommandError::Failed {
            program: name(),
            status: status.to_string(),
            said: text
                .lines()
                .next()
                .map(crate::readings::nvidia::plain_text)
                .unwrap_or_default(),
        });
    }
    Ok(Some(text))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str, bytes_max: usize, timeout: Duration) -> Result<Option<String>, CommandError> {
        output_within(timeout, "sh", &["-c", script], bytes_max)
    }

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn what_a_program_prints_is_bounded_in_time_and_length() {
        assert_eq!(shell("printf abc", 3, LONG).unwrap().as_deref(), Some("abc"));
        assert!(matches!(
            shell("printf abcd", 3, LONG),
            Err(CommandError::TooLong { .. })
        ));
        assert!(matches!(
            shell("yes", 1_000, LONG),
            Err(CommandError::TooLong { .. })
        ));
        let stuck = shell("exec sleep 600", 10, Duration::from_millis(50));
        assert!(matches!(stuck, Err(CommandError::TooSlow { .. })));
    }

    #[test]
    fn a_program_that_fails_says_why_and_one_that_is_not_there_nothing() {
        let error = shell("echo 'no driver'; exit 9", 100, LONG)
            .unwrap_err()
            .to_string();
        assert!(error.contains("no driver") && error.contains('9'), "{error}");
        assert!(
            output("no-such-program-of-any-driver", &[], 10)
                .unwrap()
                .is_none()
        );
    }
}
