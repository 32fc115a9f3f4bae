//! GPUs of Macs: `system_profiler`.

use crate::readings::apple::AppleGpuReading;

/// The GPUs that macOS shows; none elsewhere.
#[cfg(target_os = "macos")]
pub(super) fn read(notes: &mut Vec<String>) -> Vec<AppleGpuReading> {
    let arguments = ["SPDisplaysDataType", "-json"];
    match super::command::output("system_profiler", &arguments, 1 << 20) {
        Ok(Some(text)) => crate::readings::apple::parse_system_profiler(&text).unwrap_or_else(|error| {
            notes.push(format!("system_profiler can't be understood: {error}"));
            Vec::new()
        }),
        Ok(None) => Vec::new(),
        Err(error) => {
            notes.push(error.to_string());
            Vec::new()
        }
    }
}

/// The GPUs that macOS shows; none elsewhere.
#[cfg(not(target_os = "macos"))]
pub(super) fn read(_notes: &mut Vec<String>) -> Vec<AppleGpuReading> {
    Vec::new()
}
