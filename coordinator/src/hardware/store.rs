//! Where certificates are kept: not money, but what the group rule counts, so it has to survive a restart.
//!
//! [`CertificateStore`] is the seam for several processes of one coordinator: today each keeps its own, in files, so
//! one process of them poses the challenges (setting `hardware_challenges`).

use std::io;
use std::path::{Path, PathBuf};

use gristmill_benchmark::session::{CertifiedRecord, DeviceKey};
use gristmill_transport::private_file;

/// Most bytes of one record.
const RECORD_MAX_BYTES: usize = 16 * 1024;

/// Keeps the newest certificate of each device.
pub(crate) trait CertificateStore: Send + Sync {
    /// Everything that is kept.
    fn load(&self) -> io::Result<Vec<CertifiedRecord>>;
    /// Keeps a record in place of an earlier one of the same device. It is durable when this returns.
    fn keep(&self, record: &CertifiedRecord) -> io::Result<()>;
    /// Keeps nothing of a device any more.
    fn forget(&self, device: &DeviceKey) -> io::Result<()>;
}

/// One file per device in a folder that only the coordinator reads.
#[derive(Clone, Debug)]
pub(crate) struct FileStore {
    folder: PathBuf,
}

impl FileStore {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    fn path(&self, device: &DeviceKey) -> PathBuf {
        self.folder.join(format!("{}.json", device.digest()))
    }
}

impl CertificateStore for FileStore {
    fn load(&self) -> io::Result<Vec<CertifiedRecord>> {
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut records = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read(&path) {
                Ok(record) => records.extend(record),
                // Its device is challenged again; no credit hangs on it.
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a kept certificate can't be read");
                }
            }
        }
        Ok(records)
    }

    fn keep(&self, record: &CertifiedRecord) -> io::Result<()> {
        private_file::write(&self.path(&record.device()), &serde_json::to_vec(record)?)
    }

    fn forget(&self, device: &DeviceKey) -> io::Result<()> {
        match std::fs::remove_file(self.path(device)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

fn read(path: &Path) -> io::Result<Option<CertifiedRecord>> {
    let bytes = private_file::read(path, RECORD_MAX_BYTES)?;
    Ok(match bytes {
        Some(bytes) => Some(serde_json::from_slice(&bytes)?),
        None => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::hardware::{
        CertifiedDevice, HardwareCertificate, HardwareDigest, HardwareKind, METHOD,
    };
    use gristmill_protocol::identity::AccountId;
    use gristmill_protocol::ids::ChallengeId;
    use gristmill_protocol::jws::Audience;

    fn record(index: u32) -> CertifiedRecord {
        let account = AccountId::from_public_key([1; 32]);
        CertifiedRecord {
            certificate: HardwareCertificate {
                iss: account,
                sub: account,
                aud: Audience::One(account),
                jti: ChallengeId::from_bytes([2; 16]),
                iat: 1,
                exp: 2,
                shown_at: 1,
                method: METHOD.into(),
                device: CertifiedDevice {
                    kind: HardwareKind::Cpu,
                    index,
                    name: "x".into(),
                    vendor: String::new(),
                    uuid: None,
                },
                memory_bytes: 3,
                throughput: Vec::new(),
                score: 4,
                fingerprint: HardwareDigest::from_bytes([5; 32]),
                fingerprint_changed: false,
            },
            text: "signed".into(),
            address: Some((7, true)),
            again_at_ms: 9,
            has_failed: false,
        }
    }

    #[test]
    fn records_come_back_and_damaged_ones_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::new(&folder.path().join("hardware"));
        assert!(store.load().unwrap().is_empty());
        store.keep(&record(0)).unwrap();
        store.keep(&record(1)).unwrap();
        let newer = CertifiedRecord {
            again_at_ms: 10,
            ..record(1)
        };
        store.keep(&newer).unwrap();
        let mut loaded = store.load().unwrap();
        loaded.sort_by_key(|record| record.certificate.device.index);
        assert_eq!(loaded, [record(0), newer]);
        store.forget(&record(0).device()).unwrap();
        store.forget(&record(0).device()).unwrap();
        std::fs::write(store.path(&record(1).device()), "{").unwrap();
        assert!(store.load().unwrap().is_empty());
    }
}
