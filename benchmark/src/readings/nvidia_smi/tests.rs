use proptest::prelude::*;

use super::*;

const RTX_4090: &str = include_str!("../../../tests/recorded/nvidia-smi-rtx-4090-v12.xml");
const RTX_PRO_6000: &str = include_str!("../../../tests/recorded/nvidia-smi-rtx-pro-6000-v13.xml");
const TESLA_T4: &str = include_str!("../../../tests/recorded/nvidia-smi-tesla-t4-v11.xml");
const A100_MIG: &str = include_str!("../../../tests/recorded/nvidia-smi-a100-mig-v12.xml");
const HOSTILE: &str = include_str!("../../../tests/recorded/nvidia-smi-hostile.xml");
const ENTITIES: &str = include_str!("../../../tests/recorded/nvidia-smi-entities.xml");
const QUERY: &str = include_str!("../../../tests/recorded/nvidia-smi-query.csv");

const MIB: u64 = 1 << 20;

fn link(generation: u32, generation_max: u32, width: u32, width_max: u32) -> PcieLink {
    PcieLink {
        generation: Some(generation),
        generation_max: Some(generation_max),
        width: Some(width),
        width_max: Some(width_max),
    }
}

#[test]
fn a_card_for_players_with_its_compute_capability() {
    let mut readings = parse_xml(RTX_4090).unwrap();
    add_compute_capabilities(&mut readings, QUERY);
    assert_eq!(readings.driver_version.as_deref(), Some("550.144.03"));
    let expected = NvidiaReading {
        name: Some("NVIDIA GeForce RTX 4090".into()),
        uuid: Some("GPU-1a2b3c4d-0000-1111-2222-333344445555".into()),
        memory_total_bytes: Some(24_564 * MIB),
        memory_free_bytes: Some(2_171 * MIB),
        compute_capability: Some((8, 9)),
        utilization_percent: Some(98),
        temperature_celsius: Some(84),
        power_milliwatts: Some(447_910),
        power_limit_milliwatts: Some(450_000),
        pcie: link(4, 4, 8, 16),
        ecc_enabled: Some(false),
        slowdowns: vec![Slowdown::PowerCap, Slowdown::Heat],
        ..NvidiaReading::default()
    };
    assert_eq!(readings.gpus, [expected]);
}

#[test]
fn a_new_driver_that_calls_half_its_fields_deprecated() {
    let gpu = parse_xml(RTX_PRO_6000).unwrap().gpus.remove(0);
    assert_eq!(gpu.serial.as_deref(), Some("1790000000001"));
    assert_eq!(gpu.memory_total_bytes, Some(97_887 * MIB));
    assert_eq!(
        (gpu.power_milliwatts, gpu.power_limit_milliwatts),
        (Some(13_970), Some(600_000))
    );
    assert_eq!(
        (gpu.ecc_enabled, gpu.ecc_uncorrected_errors),
        (Some(true), Some(3))
    );
    assert_eq!((gpu.mig_enabled, gpu.instances.len()), (Some(false), 0));
    assert_eq!(gpu.slowdowns, []);
    assert_eq!(gpu.pcie, link(1, 5, 16, 16));
}

#[test]
fn an_old_driver_with_fields_in_other_places() {
    let gpu = parse_xml(TESLA_T4).unwrap().gpus.remove(0);
    assert_eq!(
        (gpu.power_milliwatts, gpu.power_limit_milliwatts),
        (Some(32_500), Some(65_000))
    );
    assert_eq!(gpu.ecc_uncorrected_errors, Some(4));
    assert_eq!(gpu.slowdowns, [Slowdown::Overheating, Slowdown::Hardware]);
    assert_eq!(gpu.mig_enabled, None);
}

#[test]
fn instances_of_a_gpu_in_mig_mode() {
    let gpus = parse_xml(A100_MIG).unwrap().gpus;
    let instances: Vec<_> = gpus[0]
        .instances
        .iter()
        .map(|instance| {
            (
                instance.gpu_instance,
                instance.compute_instance,
                instance.memory_total_bytes,
            )
        })
        .collect();
    assert_eq!(
        instances,
        [
            (Some(3), Some(0), Some(19_968 * MIB)),
            (Some(5), Some(0), Some(40_192 * MIB))
        ]
    );
    assert_eq!(
        (gpus[0].mig_enabled, gpus[0].utilization_percent),
        (Some(true), None)
    );
    assert_eq!((gpus[1].mig_enabled, gpus[1].instances.len()), (Some(false), 0));
}

#[test]
fn values_that_make_no_sense_are_not_told() {
    let readings = parse_xml(HOSTILE).unwrap();
    assert_eq!(readings.driver_version, None);
    assert_eq!(readings.gpus[1], NvidiaReading::default());
    let gpu = &readings.gpus[0];
    assert_eq!(gpu.name.as_ref().map(String::len), Some(256));
    assert_eq!(gpu.instances.len(), INSTANCES_MAX);
    assert_eq!(gpu.instances[0], MigInstance::default());
    assert_eq!(gpu.ecc_uncorrected_errors, Some(u64::MAX));
    let told_nothing = NvidiaReading {
        name: gpu.name.clone(),
        serial: gpu.serial.clone(),
        instances: gpu.instances.clone(),
        ecc_uncorrected_errors: gpu.ecc_uncorrected_errors,
        ..NvidiaReading::default()
    };
    assert_eq!(gpu, &told_nothing);
}

#[test]
fn what_is_none_of_its_outputs_is_refused() {
    assert!(matches!(parse_xml(ENTITIES), Err(NvidiaSmiError::Xml(_))));
    assert!(matches!(
        parse_xml("NVIDIA-SMI has failed because it couldn't communicate"),
        Err(NvidiaSmiError::Xml(_))
    ));
    assert_eq!(
        parse_xml("<html/>"),
        Err(NvidiaSmiError::OtherDocument("html".into()))
    );
    assert_eq!(
        parse_xml(&" ".repeat(OUTPUT_MAX_BYTES + 1)),
        Err(NvidiaSmiError::TooLong)
    );
    let many = format!(
        "<nvidia_smi_log>{}</nvidia_smi_log>",
        "<gpu/>".repeat(GPUS_MAX + 1)
    );
    assert_eq!(parse_xml(&many), Err(NvidiaSmiError::TooManyGpus(GPUS_MAX + 1)));
    let most = many.replacen("<gpu/>", "", 1);
    assert_eq!(parse_xml(&most).unwrap().gpus.len(), GPUS_MAX);
    let deep = format!("{}{}", "<a>".repeat(200_000), "</a>".repeat(200_000));
    assert!(parse_xml(&deep).is_err());
}

#[test]
fn an_output_that_was_cut_off_anywhere_is_refused_and_never_read_by_half() {
    let whole = A100_MIG.trim_end();
    for end in (0..whole.len()).step_by(7) {
        assert!(parse_xml(&whole[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn watts_are_read_exactly() {
    for (text, expected) in [
        ("0 W", Some(0)),
        ("70.00 W", Some(70_000)),
        ("32.5 W", Some(32_500)),
        ("1.234 W", Some(1_234)),
        ("1.2345 W", None),
        ("-1.00 W", None),
        ("+1.00 W", None),
        (".5 W", None),
        ("1 kW", None),
        ("1W", None),
        ("5000000.00 W", None),
        ("4294967.295 W", Some(u32::MAX)),
        ("4294967.296 W", None),
    ] {
        assert_eq!(milliwatts(text), expected, "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(<nvidia_smi_log>)?[ -~<>&;/]{0,200}(</nvidia_smi_log>)?", csv in "[ -~\n,.]{0,80}") {
        if let Ok(mut readings) = parse_xml(&text) {
            add_compute_capabilities(&mut readings, &csv);
        }
    }

    #[test]
    fn no_changed_byte_makes_it_panic(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = RTX_4090.as_bytes().to_vec();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        if let Ok(text) = String::from_utf8(bytes) {
            let _ = parse_xml(&text);
        }
    }
}
