//! Which AMD GPUs a program sees under `ROCR_VISIBLE_DEVICES` and `HIP_VISIBLE_DEVICES`.
//!
//! Source: ROCm documentation, "GPU isolation techniques": `ROCR_VISIBLE_DEVICES` is a list of indexes or UUIDs (`GPU-` and 16
//! hexadecimal digits) that the lowest layer shows, `HIP_VISIBLE_DEVICES` one of indexes into what that left. The first
//! entry that names no GPU ends a list. `CUDA_VISIBLE_DEVICES`, which HIP reads too, is not applied: where it is set for
//! NVIDIA's GPUs it means other devices.

use super::shown;

/// Applies both variables (`None` where one is not set) to GPUs that are known by their UUIDs, as far as they have one.
/// Gives the places of those that are visible, in the order in which programs count them, and notes for the owner.
#[must_use]
pub fn visible_gpus(
    rocr: Option<&str>,
    hip: Option<&str>,
    uuids: &[Option<String>],
) -> (Vec<usize>, Vec<String>) {
    let mut notes = Vec::new();
    let mut places: Vec<usize> = (0..uuids.len()).collect();
    for (name, variable) in [("ROCR_VISIBLE_DEVICES", rocr), ("HIP_VISIBLE_DEVICES", hip)] {
        if let Some(variable) = variable {
            places = listed(name, variable, &places, uuids, &mut notes);
        }
    }
    let hidden = uuids.len() - places.len();
    if hidden > 0 && notes.is_empty() {
        notes.push(format!(
            "{hidden} AMD GPU(s) are hidden by ROCR_VISIBLE_DEVICES or HIP_VISIBLE_DEVICES"
        ));
    }
    (places, notes)
}

/// Those of `places` that a list names.
fn listed(
    name: &str,
    variable: &str,
    places: &[usize],
    uuids: &[Option<String>],
    notes: &mut Vec<String>,
) -> Vec<usize> {
    let mut visible = Vec::new();
    // An empty list and -1 are the two usual ways to say "none", not mistakes.
    if variable.trim().is_empty() {
        return visible;
    }
    for entry in variable.split(',').map(str::trim) {
        if entry == "-1" {
            return visible;
        }
        let by_index = || {
            entry
                .parse::<usize>()
                .ok()
                .and_then(|index| places.get(index))
                .copied()
        };
        let by_uuid = || {
            let is_it = |place: &usize| {
                let uuid = uuids.get(*place).and_then(Option::as_deref);
                uuid.is_some_and(|uuid| uuid.eq_ignore_ascii_case(entry))
            };
            places.iter().copied().find(is_it)
        };
        match by_index().or_else(by_uuid) {
            Some(place) if !visible.contains(&place) => visible.push(place),
            Some(_) => {}
            None => {
                notes.push(format!(
                    "{name}: '{}' names no GPU here; it and what follows it is invisible",
                    shown(entry)
                ));
                return visible;
            }
        }
    }
    visible
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn three() -> Vec<Option<String>> {
        vec![
            Some("GPU-79ccd55167a2124a".into()),
            None,
            Some("GPU-0000000000000002".into()),
        ]
    }

    fn of(rocr: Option<&str>, hip: Option<&str>) -> (Vec<usize>, usize) {
        let (places, notes) = visible_gpus(rocr, hip, &three());
        (places, notes.len())
    }

    #[test]
    fn the_variables_select_and_order_one_after_the_other() {
        assert_eq!(of(None, None), (vec![0, 1, 2], 0));
        assert_eq!(of(Some("2,0"), None), (vec![2, 0], 1));
        assert_eq!(of(None, Some("1")), (vec![1], 1));
        assert_eq!(
            of(Some("2,0"), Some("1")),
            (vec![0], 1),
            "an index into what is left"
        );
        assert_eq!(of(Some("GPU-79CCD55167A2124A, 2"), None), (vec![0, 2], 1));
        assert_eq!(of(Some("0,0,1,2"), None), (vec![0, 1, 2], 0));
        assert_eq!(of(Some(""), None), (vec![], 1));
        assert_eq!(of(Some("1,-1,2"), None), (vec![1], 1));
    }

    #[test]
    fn an_entry_that_names_nothing_ends_the_list_and_is_told() {
        let (places, notes) = visible_gpus(Some("1,7,0"), None, &three());
        assert_eq!(places, [1]);
        assert!(notes[0].contains("ROCR_VISIBLE_DEVICES: '7'"), "{notes:?}");
        let (places, notes) = visible_gpus(Some("1"), Some("1"), &three());
        assert!(
            places.is_empty() && notes[0].contains("HIP_VISIBLE_DEVICES: '1'"),
            "{notes:?}"
        );
    }

    proptest! {
        #[test]
        fn whatever_stands_there_shows_no_gpu_twice(rocr in "[-0-3GPU,a ]{0,12}", hip in "\\PC{0,8}") {
            let (places, notes) = visible_gpus(Some(&rocr), Some(&hip), &three());
            let mut once = places.clone();
            once.sort_unstable();
            once.dedup();
            prop_assert!(once.len() == places.len() && places.iter().all(|place| *place < 3));
            prop_assert!(places.len() == 3 || !notes.is_empty());
        }
    }
}
