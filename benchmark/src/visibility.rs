//! Which NVIDIA GPUs a CUDA program sees under `CUDA_VISIBLE_DEVICES`.
//!
//! Source: CUDA C++ Programming Guide, "CUDA Environment Variables": a list of indexes or UUIDs (or the first
//! characters of one), in the order in which programs count them; the first invalid entry ends the list. An entry
//! that is there twice makes every GPU invisible, as the CUDA runtime does.

/// Which GPUs are visible.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VisibleDevices {
    /// Positions in the list of all GPUs, in the order in which CUDA programs count them.
    pub positions: Vec<usize>,
    /// Why entries of the list were left out, for the owner.
    pub note: Option<String>,
}

/// Applies the value of `CUDA_VISIBLE_DEVICES` (`None` where it is not set) to GPUs by their UUIDs.
#[must_use]
pub fn visible_devices(variable: Option<&str>, uuids: &[Option<String>]) -> VisibleDevices {
    let Some(variable) = variable else {
        return VisibleDevices {
            positions: (0..uuids.len()).collect(),
            note: None,
        };
    };
    let mut positions = Vec::new();
    for entry in variable.split(',').map(str::trim) {
        // An empty list and -1 are the two usual ways to say "none", not mistakes.
        if variable.trim().is_empty() || entry == "-1" {
            return VisibleDevices {
                positions,
                note: None,
            };
        }
        let Some(position) = position_of(entry, uuids) else {
            let note = format!(
                "CUDA_VISIBLE_DEVICES: '{entry}' names no GPU here; it and what follows it is invisible{}",
                if entry.starts_with("MIG-") {
                    " (MIG instances are not listed)"
                } else {
                    ""
                }
            );
            return VisibleDevices {
                positions,
                note: Some(note),
            };
        };
        if positions.contains(&position) {
            let note = format!("CUDA_VISIBLE_DEVICES names '{entry}' twice, so CUDA shows no GPU at all");
            return VisibleDevices {
                positions: vec![],
                note: Some(note),
            };
        }
        positions.push(position);
    }
    VisibleDevices {
        positions,
        note: None,
    }
}

fn position_of(entry: &str, uuids: &[Option<String>]) -> Option<usize> {
    if entry.starts_with("GPU-") {
        let fits = |uuid: &Option<String>| uuid.as_ref().is_some_and(|uuid| uuid.starts_with(entry));
        let mut found = uuids
            .iter()
            .enumerate()
            .filter(|(_, uuid)| fits(uuid))
            .map(|(position, _)| position);
        let first = found.next();
        // The beginning of two UUIDs names neither.
        return if found.next().is_none() { first } else { None };
    }
    entry.parse().ok().filter(|position| *position < uuids.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_selects_and_orders() {
        let uuids =
            ["GPU-8932f937-d72c", "GPU-89aa0000-1111", "GPU-ffff0000-2222"].map(|uuid| Some(uuid.to_owned()));
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
            (Some("MIG-GPU-8932f937/1/0"), none, Some("MIG instances")),
        ];
        for (variable, positions, note) in cases {
            let visible = visible_devices(variable, &uuids);
            assert_eq!(visible.positions, positions, "{variable:?}");
            match note {
                None => assert_eq!(visible.note, None, "{variable:?}"),
                Some(part) => assert!(visible.note.unwrap().contains(part), "{variable:?}"),
            }
        }
    }

    #[test]
    fn a_gpu_without_uuid_is_still_found_by_index() {
        assert_eq!(visible_devices(Some("1"), &[None, None]).positions, [1]);
        assert!(visible_devices(Some("GPU-1"), &[None, None]).positions.is_empty());
    }
}
