//! Ed25519 as everything here signs and verifies it, against the vectors of the RFCs and of Project Wycheproof.

use std::collections::BTreeMap;

use gristmill_protocol::coordinator_api::{Jwk, listing_text as base64url};
use gristmill_protocol::identity::{AccountId, Keypair, Signature};
use wycheproof::TestResult;
use wycheproof::eddsa::{TestName, TestSet};

fn accepted(public: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let (Ok(public), Ok(signature)) = (public.try_into(), signature.try_into()) else {
        // Keys and signatures of any other length are not even representable.
        return false;
    };
    let account = AccountId::from_public_key(public);
    account
        .verify_bytes(message, &Signature::from_bytes(signature))
        .is_ok()
}

/// Strict verification accepts every signature that Wycheproof calls valid: none of them has a small-order key or R,
/// which is all that strictness refuses beyond RFC 8032.
#[test]
fn wycheproof_ed25519() {
    let tests = TestSet::load(TestName::Ed25519).unwrap();
    let mut counted: BTreeMap<&str, usize> = BTreeMap::new();
    for group in &tests.test_groups {
        for test in &group.tests {
            let result = accepted(&group.key.pk, &test.msg, &test.sig);
            let (name, expected) = match test.result {
                TestResult::Valid => ("valid", true),
                TestResult::Invalid => ("invalid", false),
                TestResult::Acceptable => panic!("test {} may go either way", test.tc_id),
            };
            assert_eq!(result, expected, "test {}: {}", test.tc_id, test.comment);
            *counted.entry(name).or_default() += 1;
        }
    }
    assert_eq!(tests.number_of_tests, counted.values().sum::<usize>());
    assert_eq!(counted, BTreeMap::from([("valid", 88), ("invalid", 63)]));
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// RFC 8032 section 7.1: tests 1, 2, 3 and SHA(abc).
#[test]
fn rfc_8032_vectors() {
    for (secret, public, message, signature) in [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b\
             d25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c\
             387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659\
             4a7c15e9716ed28dc027beceea1ec40a",
        ),
        (
            "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
            "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd\
             454d4423643ce80e2a9ac94fa54ca49f",
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e030\
             3dca179c138ac17ad9bef1177331a704",
        ),
    ] {
        let keypair = Keypair::from_secret(&bytes(secret).try_into().unwrap());
        assert_eq!(keypair.account().public_key().to_vec(), bytes(public));
        assert_eq!(
            keypair.sign_bytes(&bytes(message)).bytes().to_vec(),
            bytes(signature)
        );
        assert!(accepted(&bytes(public), &bytes(message), &bytes(signature)));
    }
}

/// RFC 8037 appendix A: a key as JWK, and a signature over a JWS with it.
#[test]
fn rfc_8037_vectors() {
    let secret = bytes("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
    let keypair = Keypair::from_secret(&secret.try_into().unwrap());
    let jwk = Jwk::of(&keypair.account());
    assert_eq!((jwk.kty.as_str(), jwk.crv.as_str()), ("OKP", "Ed25519"));
    assert_eq!(jwk.x, "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
    let (header, payload) = (r#"{"alg":"EdDSA"}"#, "Example of Ed25519 signing");
    let input = format!(
        "{}.{}",
        base64url(header.as_bytes()),
        base64url(payload.as_bytes())
    );
    assert_eq!(input, "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc");
    let signature = keypair.sign_bytes(input.as_bytes());
    assert_eq!(
        base64url(signature.bytes()),
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    );
    assert!(accepted(
        keypair.account().public_key(),
        input.as_bytes(),
        signature.bytes()
    ));
}
