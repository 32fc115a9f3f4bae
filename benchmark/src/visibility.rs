//! Which NVIDIA GPUs, or instances of them, a CUDA program sees under `CUDA_VISIBLE_DEVICES`.
//!
//! Sources: CUDA C++ Programming Guide, "CUDA Environment Variables": a list of indexes or UUIDs (or the first
//! characters of one), in the order in which programs count them; the first invalid entry ends the list. An entry
//! that is there twice makes every GPU invisible, as the CUDA runtime does. NVIDIA Multi-Instance GPU User Guide,
//! "CUDA Device Enumeration": instances are named `MIG-` and their UUID or, before driver 470, `MIG-`, the UUID of the
//! GPU, and the numbers of GPU instance and compute instance; a program sees one instance at most, the first one, and
//! no other GPU beside it.

pub mod rocm;

/// A GPU as far as its visibility goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuNames {
    /// `GPU-` and 32 hexadecimal digits.
    pub uuid: Option<String>,
    /// Whether it is in the mode in which it is split into instances (MIG).
    pub split: bool,
    /// Its instances.
    pub instances: Vec<InstanceNames>,
}

/// An instance of a GPU as far as its visibility goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceNames {
    /// `MIG-` and what follows.
    pub uuid: Option<String>,
    /// The number of its GPU instance.
    pub gpu_instance: Option<u32>,
    /// The number of its compute instance.
    pub compute_instance: Option<u32>,
}

/// Something that a CUDA program sees as one device: places in the list of all GPUs, and in that of its instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visible {
    /// Which GPU.
    pub gpu: usize,
    /// Which of its instances.
    pub instance: Option<usize>,
}

/// Which GPUs are visible.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VisibleDevices {
    /// In the order in which CUDA programs count them.
    pub devices: Vec<Visible>,
    /// What the owner should know about the list.
    pub notes: Vec<String>,
}

/// Applies the value of `CUDA_VISIBLE_DEVICES` (`None` where it is not set).
#[must_use]
pub fn visible_devices(variable: Option<&str>, gpus: &[GpuNames]) -> VisibleDevices {
    let listed = match variable {
        None => VisibleDevices {
            devices: (0..gpus.len())
                .map(|gpu| Visible { gpu, instance: None })
                .collect(),
            notes: Vec::new(),
        },
        Some(variable) => listed(variable, gpus),
    };
    one_instance(listed, gpus)
}

/// What the list names, before the rule about instances.
fn listed(variable: &str, gpus: &[GpuNames]) -> VisibleDevices {
    let mut visible = VisibleDevices::default();
    // An empty list and -1 are the two usual ways to say "none", not mistakes.
    if variable.trim().is_empty() {
        return visible;
    }
    for entry in variable.split(',').map(str::trim) {
        if entry == "-1" {
            return visible;
        }
        let Some(device) = device_of(entry, gpus) else {
            visible.notes.push(format!(
                "CUDA_VISIBLE_DEVICES: '{}' names no GPU here; it and what follows it is invisible",
                shown(entry)
            ));
            return visible;
        };
        if visible.devices.contains(&device) {
            let note = format!(
                "CUDA_VISIBLE_DEVICES names '{}' twice, so CUDA shows no GPU at all",
                shown(entry)
            );
            return VisibleDevices {
                devices: Vec::new(),
                notes: vec![note],
            };
        }
        visible.devices.push(device);
    }
    visible
}

/// An entry as a note shows it: whoever sets the variable may have pasted anything.
fn shown(entry: &str) -> String {
    entry
        .chars()
        .filter(|character| !character.is_control())
        .take(64)
        .collect()
}

fn device_of(entry: &str, gpus: &[GpuNames]) -> Option<Visible> {
    if entry.starts_with("MIG-") {
        return instance_of(entry, gpus);
    }
    let gpu = if entry.starts_with("GPU-") {
        only(
            (0..)
                .zip(gpus)
                .filter(|(_, gpu)| begins(gpu.uuid.as_deref(), entry))
                .map(|(place, _)| place),
        )?
    } else {
        entry.parse().ok().filter(|place| *place < gpus.len())?
    };
    Some(Visible { gpu, instance: None })
}

fn instance_of(entry: &str, gpus: &[GpuNames]) -> Option<Visible> {
    let all = (0..).zip(gpus).flat_map(|(place, gpu)| {
        (0..).zip(&gpu.instances).map(move |(instance, names)| {
            (
                Visible {
                    gpu: place,
                    instance: Some(instance),
                },
                gpu,
                names,
            )
        })
    });
    let by_numbers = |gpu: &GpuNames, names: &InstanceNames| {
        let mut parts = entry["MIG-".len()..].split('/');
        let parent = parts
            .next()
            .is_some_and(|parent| parent.starts_with("GPU-") && begins(gpu.uuid.as_deref(), parent));
        let mut same = |number: Option<u32>| {
            number.is_some() && parts.next().and_then(|part| part.parse().ok()) == number
        };
        parent && same(names.gpu_instance) && same(names.compute_instance) && parts.next().is_none()
    };
    only(
        all.filter(|(_, gpu, names)| begins(names.uuid.as_deref(), entry) || by_numbers(gpu, names))
            .map(|(device, ..)| device),
    )
}

fn begins(uuid: Option<&str>, with: &str) -> bool {
    uuid.is_some_and(|uuid| uuid.starts_with(with))
}

/// The only one there is: the beginning of two UUIDs names neither.
fn only<T>(mut found: impl Iterator<Item = T>) -> Option<T> {
    let first = found.next();
    if found.next().is_none() { first } else { None }
}

/// A GPU that is split shows its first instance, and one without instances nothing; an instance is seen alone.
fn one_instance(listed: VisibleDevices, gpus: &[GpuNames]) -> VisibleDevices {
    let VisibleDevices { devices, mut notes } = listed;
    let (mut seen, mut idle) = (Vec::new(), 0);
    for device in &devices {
        match gpus.get(device.gpu) {
            Some(gpu) if gpu.split && device.instance.is_none() && gpu.instances.is_empty() => idle += 1,
            Some(gpu) if gpu.split && device.instance.is_none() => seen.push(Visible {
                instance: Some(0),
                ..*device
            }),
            _ => seen.push(*device),
        }
    }
    if idle > 0 {
        notes.push(format!(
            "{idle} of the GPUs are in MIG mode without an instance, so CUDA does not show them; make instances \
             (nvidia-smi mig -cgi … -C) or end MIG mode (nvidia-smi -mig 0)"
        ));
    }
    let Some(instance) = seen.iter().copied().find(|device| device.instance.is_some()) else {
        return VisibleDevices { devices: seen, notes };
    };
    let all: usize = gpus.iter().map(|gpu| gpu.instances.len()).sum();
    if all > 1 || seen.len() > 1 {
        notes.push(format!(
            "CUDA shows a program one MIG instance and no GPU beside it; there are {all} instances here, so run one \
             node for each, with CUDA_VISIBLE_DEVICES=MIG-… and a data folder of its own"
        ));
    }
    VisibleDevices {
        devices: vec![instance],
        notes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(uuid: &str) -> GpuNames {
        GpuNames {
            uuid: Some(uuid.to_owned()),
            ..GpuNames::default()
        }
    }

    fn split(uuid: &str, instances: &[(&str, u32)]) -> GpuNames {
        let instance = |(uuid, number): &(&str, u32)| InstanceNames {
            uuid: (!uuid.is_empty()).then(|| (*uuid).to_owned()),
            gpu_instance: Some(*number),
            compute_instance: Some(0),
        };
        GpuNames {
            split: true,
            instances: instances.iter().map(instance).collect(),
            ..gpu(uuid)
        }
    }

    fn gpus_of(visible: &VisibleDevices) -> Vec<usize> {
        visible.devices.iter().map(|device| device.gpu).collect()
    }

    #[test]
    fn the_variable_selects_and_orders() {
        let gpus = ["GPU-8932f937-d72c", "GPU-89aa0000-1111", "GPU-ffff0000-2222"].map(gpu);
        let none: &[usize] = &[];
        let cases: [(Option<&str>, &[usize], Option<&str>); 16] = [
            (None, &[0, 1, 2], None),
            (Some(""), none, None),
            (Some("  "), none, None),
            (Some("-1"), none, None),
            (Some("0"), &[0], None),
            (Some("2,0"), &[2, 0], None),
            (Some(" 1 , 2 "), &[1, 2], None),
            (Some("0,-1,1"), &[0], None),
            (Some("0,3,1"), &[0], Some("'3'")),
            (Some("0,,1"), &[0], Some("''")),
            (Some("NoDevFiles"), none, Some("'NoDevFiles'")),
            (Some("0,1,0"), none, Some("twice")),
            (Some("GPU-ffff,GPU-8932f937-d72c"), &[2, 0], None),
            (Some("GPU-89"), none, Some("'GPU-89'")),
            (Some("GPU-ffff0000-2222,2"), none, Some("twice")),
            (Some("MIG-GPU-8932f937/1/0"), none, Some("'MIG-GPU-8932f937/1/0'")),
        ];
        for (variable, positions, note) in cases {
            let visible = visible_devices(variable, &gpus);
            assert_eq!(gpus_of(&visible), positions, "{variable:?}");
            match note {
                None => assert_eq!(visible.notes, Vec::<String>::new(), "{variable:?}"),
                Some(part) => assert!(visible.notes[0].contains(part), "{variable:?}"),
            }
        }
    }

    #[test]
    fn a_gpu_without_uuid_is_still_found_by_index() {
        let gpus = [GpuNames::default(), GpuNames::default()];
        assert_eq!(gpus_of(&visible_devices(Some("1"), &gpus)), [1]);
        assert!(visible_devices(Some("GPU-1"), &gpus).devices.is_empty());
        assert!(visible_devices(Some("MIG-1"), &gpus).devices.is_empty());
    }

    #[test]
    fn one_instance_is_seen_alone_and_named_in_two_ways() {
        let gpus = [
            gpu("GPU-1111"),
            split("GPU-2222-aa", &[("MIG-aaaa-1", 3), ("MIG-aabb-2", 4)]),
            split("GPU-3333", &[("", 1)]),
        ];
        let first = Visible {
            gpu: 1,
            instance: Some(0),
        };
        let second = Visible {
            gpu: 1,
            instance: Some(1),
        };
        let third = Visible {
            gpu: 2,
            instance: Some(0),
        };
        let cases: [(Option<&str>, &[Visible]); 14] = [
            (None, &[first]),
            (Some("0,1,2"), &[first]),
            (Some("2,1"), &[third]),
            (
                Some("0"),
                &[Visible {
                    gpu: 0,
                    instance: None,
                }],
            ),
            (Some("GPU-2222"), &[first]),
            (Some("MIG-aabb-2"), &[second]),
            (Some("MIG-aab"), &[second]),
            (Some("MIG-aa"), &[]),
            (Some("MIG-aabb-2,MIG-aaaa-1"), &[second]),
            (Some("MIG-GPU-2222-aa/4/0"), &[second]),
            (Some("MIG-GPU-3333/1/0"), &[third]),
            (Some("MIG-GPU-3333/1/1"), &[]),
            (Some("MIG-GPU-3333/1"), &[]),
            (Some("MIG-GPU-3333/1/0/0"), &[]),
        ];
        for (variable, devices) in cases {
            assert_eq!(visible_devices(variable, &gpus).devices, devices, "{variable:?}");
        }
        let notes = visible_devices(None, &gpus).notes;
        assert!(notes.len() == 1 && notes[0].contains("3 instances"), "{notes:?}");
        assert!(visible_devices(Some("0"), &gpus).notes.is_empty());
    }

    #[test]
    fn a_gpu_in_the_mode_without_instances_is_not_seen() {
        let gpus = [split("GPU-1", &[]), gpu("GPU-2")];
        let visible = visible_devices(None, &gpus);
        assert_eq!(
            visible.devices,
            [Visible {
                gpu: 1,
                instance: None
            }]
        );
        assert!(visible.notes[0].contains("without an instance"));
    }

    #[test]
    fn pasted_rubbish_is_not_repeated_in_full() {
        let note = &visible_devices(Some(&"\u{1b}x".repeat(1_000)), &[]).notes[0];
        assert!(note.len() < 200 && !note.contains('\u{1b}'), "{note}");
    }
}
