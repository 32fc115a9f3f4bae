//! A coordinator as a process.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::program::{gristmill, run};
use super::steady_port::steady_address;

/// A coordinator that runs until it is dropped, which kills it without any warning.
pub(crate) struct Coordinator {
    process: Child,
    pub(crate) url: String,
}

impl Coordinator {
    pub(crate) fn start(folder: &Path) -> Self {
        let address = steady_address();
        let listen = address.to_string();
        let mesh = "/ip4/127.0.0.1/udp/0/quic-v1";
        let arguments = [
            "coordinator",
            "serve",
            "--http-listen",
            &listen,
            "--mesh-listen",
            mesh,
        ];
        let mut process = gristmill(folder, &arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(address).is_err() {
            assert!(process.try_wait().unwrap().is_none(), "the coordinator ended");
            assert!(Instant::now() < deadline, "the coordinator did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self {
            process,
            url: format!("http://{listen}"),
        }
    }

    /// Issues credits and gives the account's balance as the operator sees it.
    pub(crate) fn grant(&self, folder: &Path, account: &str, amount: &str) -> Value {
        let arguments = [
            "coordinator",
            "grant",
            account,
            amount,
            "--coordinator",
            &self.url,
            "--json",
        ];
        let output = run(folder, &arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
