use super::*;
use serde_json::{Value, json};

fn read(document: &Value) -> Result<Configuration, LoadError> {
    let bytes: &'static [u8] = serde_json::to_vec(document).unwrap().leak();
    Configuration::from_files(&ModelFiles::in_memory("m", [("config.json", bytes)]))
}

fn llama() -> Value {
    json!({
        "model_type": "llama", "vocab_size": 100, "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 2048
    })
}

fn with(key: &str, value: Value) -> Value {
    let mut document = llama();
    document[key] = value;
    document
}

#[test]
fn what_a_configuration_leaves_out_has_the_defaults_of_its_family() {
    let llama = read(&llama()).unwrap();
    assert_eq!((llama.head_dimension, llama.rope_theta), (16, 10_000.0));
    assert!(!llama.attention_bias && !llama.tied_embeddings);
    let qwen = read(&with("model_type", json!("qwen2"))).unwrap();
    assert!(qwen.attention_bias && !qwen.output_bias);
}

#[test]
fn both_ways_to_write_rotary_parameters_are_read() {
    let older = with("rope_scaling", json!({"type": "linear", "factor": 2.0}));
    assert_eq!(
        read(&older).unwrap().rope_scaling,
        RopeScaling::Linear { factor: 2.0 }
    );
    let newer = with(
        "rope_parameters",
        json!({"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}),
    );
    let newer = read(&newer).unwrap();
    assert!((newer.rope_theta - 5e5).abs() < 1.0);
    assert!(matches!(newer.rope_scaling, RopeScaling::Llama3 { .. }));
}

#[test]
fn a_sliding_window_bounds_the_context_where_it_is_used() {
    let mut document = with("sliding_window", json!(512));
    assert_eq!(read(&document).unwrap().context_length, 512);
    document["use_sliding_window"] = json!(false);
    assert_eq!(read(&document).unwrap().context_length, 2048);
    assert_eq!(
        read(&with("sliding_window", Value::Null)).unwrap().context_length,
        2048
    );
    let long = with("max_position_embeddings", json!(1_000_000));
    assert_eq!(read(&long).unwrap().context_length, CONTEXT_TOKENS_MAX);
}

#[test]
fn what_can_not_be_run_is_said_to_be_unsupported() {
    for (key, value) in [
        ("model_type", json!("gpt_neox")),
        ("hidden_act", json!("gelu")),
        ("mlp_bias", json!(true)),
        ("partial_rotary_factor", json!(0.5)),
        ("quantization_config", json!({"quant_method": "awq"})),
        ("rope_scaling", json!({"rope_type": "yarn", "factor": 4.0})),
    ] {
        assert!(
            matches!(read(&with(key, value)), Err(LoadError::Unsupported { .. })),
            "{key}"
        );
    }
}

#[test]
fn nonsense_is_said_to_be_damaged() {
    for (key, value) in [
        ("num_attention_heads", json!(0)),
        ("num_attention_heads", json!(3)),
        ("num_key_value_heads", json!(0)),
        ("head_dim", json!(7)),
        ("hidden_size", json!(u64::MAX)),
        ("vocab_size", json!(0)),
        ("num_hidden_layers", json!(1_000_000)),
        ("max_position_embeddings", json!(0)),
        ("rms_norm_eps", json!(-1.0)),
        ("rope_theta", json!(0.0)),
        ("rope_scaling", json!({"type": "linear", "factor": 0.0})),
        ("vocab_size", json!("many")),
    ] {
        assert!(
            matches!(read(&with(key, value)), Err(LoadError::Damaged { .. })),
            "{key}"
        );
    }
}
