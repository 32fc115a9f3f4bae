//! Reads the machine: NVML or `nvidia-smi` for NVIDIA GPUs, the files of the amdgpu driver, `system_profiler` on Macs,
//! the operating system for the rest. Nothing here decides.

use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

use crate::inventory::{Host, Inventory};
use crate::readings::processor::CpuReading;
use crate::readings::{CudaEnvironment, Readings, RocmEnvironment, Support};

mod amd;
mod apple;
mod command;
mod nvidia;

/// Which kinds of device this build can compute on.
#[must_use]
pub fn support() -> Support {
    Support {
        cuda: candle_core::utils::cuda_is_available(),
        metal: candle_core::utils::metal_is_available(),
    }
}

/// Takes the inventory of this machine. What cannot be read is a note in it, never a failure.
///
/// Loads the NVIDIA driver's library, which can take a second, and where that is not there may run programs of the
/// drivers, for ten seconds at most each: call it outside of async tasks.
#[must_use]
pub fn inventory() -> Inventory {
    crate::readings::inventory(&readings(), support())
}

/// Reads this machine, and makes nothing of it.
#[must_use]
pub fn readings() -> Readings {
    let mut notes = Vec::new();
    let nvidia = nvidia::read(&mut notes);
    let amd = amd::read(&mut notes);
    let apple = apple::read(&mut notes);
    let cpu = read_cpu(&mut notes);
    Readings {
        host: Host {
            operating_system: System::long_os_version().unwrap_or_else(|_| std::env::consts::OS.to_owned()),
            architecture: std::env::consts::ARCH.to_owned(),
        },
        environment: CudaEnvironment {
            visible_devices: std::env::var("CUDA_VISIBLE_DEVICES").ok(),
            device_order: std::env::var("CUDA_DEVICE_ORDER").ok(),
        },
        rocm_environment: RocmEnvironment {
            rocr_visible_devices: std::env::var("ROCR_VISIBLE_DEVICES").ok(),
            hip_visible_devices: std::env::var("HIP_VISIBLE_DEVICES").ok(),
        },
        nvidia,
        amd,
        apple,
        cpu,
        notes,
    }
}

fn read_cpu(notes: &mut Vec<String>) -> CpuReading {
    let parts = RefreshKind::nothing()
        .with_cpu(CpuRefreshKind::nothing())
        .with_memory(MemoryRefreshKind::nothing().with_ram());
    let threads = std::thread::available_parallelism()
        .ok()
        .and_then(|threads| u32::try_from(threads.get()).ok());
    let cores = System::physical_core_count()
        .ok()
        .and_then(|cores| u32::try_from(cores).ok());
    let system = match System::new_with_specifics(parts) {
        Ok(system) => system,
        Err(error) => {
            notes.push(format!(
                "the operating system does not tell CPU and memory: {error}"
            ));
            return CpuReading {
                cores,
                threads,
                ..CpuReading::default()
            };
        }
    };
    let cpu = system.cpus().first();
    CpuReading {
        name: cpu.map(|cpu| cpu.brand().trim().to_owned()).unwrap_or_default(),
        vendor: cpu.map(|cpu| cpu.vendor_id().to_owned()).unwrap_or_default(),
        cores,
        threads,
        features: features().into_iter().map(str::to_owned).collect(),
        memory_total_bytes: system.total_memory(),
        memory_available_bytes: system.available_memory(),
        container_memory_bytes: system
            .cgroup_limits()
            .map(|limits| (limits.total_memory, limits.free_memory)),
    }
}

/// What the processor has for multiplying matrices.
fn features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let found = [
        ("avx", std::arch::is_x86_feature_detected!("avx")),
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("f16c", std::arch::is_x86_feature_detected!("f16c")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ("avx512bf16", std::arch::is_x86_feature_detected!("avx512bf16")),
        ("avx512vnni", std::arch::is_x86_feature_detected!("avx512vnni")),
    ];
    #[cfg(target_arch = "aarch64")]
    let found = [
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("fp16", std::arch::is_aarch64_feature_detected!("fp16")),
        ("dotprod", std::arch::is_aarch64_feature_detected!("dotprod")),
        ("bf16", std::arch::is_aarch64_feature_detected!("bf16")),
        ("i8mm", std::arch::is_aarch64_feature_detected!("i8mm")),
        ("sve", std::arch::is_aarch64_feature_detected!("sve")),
    ];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let found: [(&str, bool); 0] = [];
    found
        .into_iter()
        .filter(|(_, is_there)| *is_there)
        .map(|(name, _)| name)
        .collect()
}
