//! Runs a program: an argument vector, never a shell; bounded in time and output.

use crate::limits::ACTION_OUTPUT_BYTES_MAX;
use crate::remediate::record::ActionOutcome;
use rustix::process::{Pid, Signal, kill_process_group};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// Runs `arguments` and waits for its end, or for the time to be over: then the program and all that it
/// started are killed.
pub(crate) async fn run(
    arguments: &[String],
    environment: &[(&str, String)],
    time_max: Duration,
) -> ActionOutcome {
    let Some((program, rest)) = arguments.split_first() else {
        return failed("an empty command".to_owned());
    };
    let spawned = Command::new(program)
        .args(rest)
        // Tokens that the alertmanager was started with are none of the action's business.
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .envs(environment.iter().map(|(name, value)| (*name, value.as_str())))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return failed(format!("cannot start {program}: {error}")),
    };
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let (status, out, err) = tokio::join!(child.wait(), read_bounded(stdout), read_bounded(stderr));
        (status, out, err)
    };
    match tokio::time::timeout(time_max, work).await {
        Ok((Ok(status), out, err)) => ActionOutcome {
            exit_code: status.code(),
            error: status.code().is_none().then(|| "ended by a signal".to_owned()),
            timed_out: false,
            output_truncated: out.1 || err.1,
            stdout: out.0,
            stderr: err.0,
        },
        Ok((Err(error), ..)) => failed(format!("cannot wait for {program}: {error}")),
        Err(_) => {
            if let Some(group) = group {
                // The group may be gone by now, which is what is wanted.
                let _ = kill_process_group(group, Signal::KILL);
            }
            let error = format!("not done after {} s, killed", time_max.as_secs_f64());
            ActionOutcome { timed_out: true, error: Some(error), ..ActionOutcome::default() }
        }
    }
}

fn failed(error: String) -> ActionOutcome {
    ActionOutcome { error: Some(error), ..ActionOutcome::default() }
}

/// Reads to the end and keeps the beginning.
async fn read_bounded(stream: Option<impl AsyncRead + Unpin>) -> (String, bool) {
    let mut kept = Vec::new();
    let mut truncated = false;
    if let Some(mut stream) = stream {
        let mut buffer = [0u8; 4_096];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            let room = ACTION_OUTPUT_BYTES_MAX - kept.len();
            kept.extend_from_slice(&buffer[..count.min(room)]);
            truncated |= count > room;
        }
    }
    (String::from_utf8_lossy(&kept).into_owned(), truncated)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn outcome(arguments: &[&str], time_max: Duration) -> ActionOutcome {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        run(&arguments, &[("PHAROS_ALERT", "A".to_owned())], time_max).await
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn arguments_reach_the_program_as_they_are() {
        let outcome = outcome(&["/bin/echo", "a b", "$HOME; ls"], LONG).await;
        assert_eq!((outcome.exit_code, outcome.stdout.as_str()), (Some(0), "a b $HOME; ls\n"));
        assert!(outcome.succeeded());
    }

    #[tokio::test]
    async fn failures_are_told_apart() {
        assert_eq!(outcome(&["/bin/sh", "-c", "echo no >&2; exit 3"], LONG).await.exit_code, Some(3));
        assert!(outcome(&["/no/such/program"], LONG).await.error.unwrap().contains("cannot start"));
        let slow = outcome(&["/bin/sleep", "1000"], Duration::from_millis(20)).await;
        assert!(slow.timed_out && !slow.succeeded());
    }

    #[tokio::test]
    async fn output_is_bounded() {
        let outcome = outcome(&["/bin/sh", "-c", "head -c 1000000 /dev/zero"], LONG).await;
        assert_eq!(outcome.stdout.len(), ACTION_OUTPUT_BYTES_MAX);
        assert!(outcome.output_truncated && outcome.succeeded());
    }

    #[tokio::test]
    async fn the_environment_is_clean() {
        let outcome = outcome(&["/usr/bin/env"], LONG).await;
        let mut names: Vec<&str> = outcome.stdout.lines().filter_map(|line| line.split('=').next()).collect();
        names.sort_unstable();
        assert_eq!(names, ["PATH", "PHAROS_ALERT"]);
    }
}
