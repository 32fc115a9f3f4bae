//! What a coordinator decides, without I/O: functions and state machines of the call, the ledger's answer and the
//! time. The drivers (`http`, `server`) call these and do what they say.

pub mod auditor_key;
pub mod authentication;
pub mod channel_policy;
pub mod directory;
pub mod documents;
pub mod rejection;
pub mod replay_guard;
pub mod starter_grant;
