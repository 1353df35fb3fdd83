//! Parses command lines and looks at the set of flags; runs nothing.

use clap::{CommandFactory, Parser};
use lsb_stream::AdaptivePrecision;
use std::collections::BTreeSet;

#[test]
fn the_command_is_consistent() {
    crate::Cli::command().debug_assert();
}

#[test]
fn every_verb_explains_itself_and_shows_an_example() {
    for verb in crate::Cli::command().get_subcommands().filter(|v| v.get_name() != "help") {
        let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(!about.is_empty() && about.len() < 80, "{}: {about}", verb.get_name());
        let after = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(after.contains(&format!("lsb {}", verb.get_name())), "{} has no example", verb.get_name());
    }
}

#[test]
fn every_flag_has_help_and_every_value_a_name() {
    for verb in crate::Cli::command().get_subcommands().filter(|v| v.get_name() != "help") {
        let mut longs = BTreeSet::new();
        for arg in verb.get_arguments() {
            let place = format!("{} {}", verb.get_name(), arg.get_id());
            assert!(arg.get_help().is_some(), "{place} has no help");
            if let Some(long) = arg.get_long() {
                assert!(longs.insert(long.to_owned()), "{place} is there twice");
            }
            if arg.get_action().takes_values() {
                let names = arg.get_value_names().unwrap_or_default();
                let named = names.iter().all(|n| n.chars().all(|c| !c.is_lowercase()));
                assert!(!names.is_empty() && named, "{place} does not name its value");
            }
        }
    }
}

#[test]
fn every_option_of_the_configuration_is_a_flag() {
    let config = serde_json::to_value(lsb_stream::CompressConfig::default()).unwrap();
    let command = crate::Cli::command();
    let compress = command.find_subcommand("compress").unwrap();
    let flags: BTreeSet<String> =
        compress.get_arguments().filter_map(|a| a.get_long()).map(|l| l.replace('-', "_")).collect();
    for name in config.as_object().unwrap().keys() {
        let flag = match name.as_str() {
            "rules" => "rule",
            "target" => "ratio",
            "max_header_mb" => "max_header",
            "shard_bytes" => "shard_size",
            other => other,
        };
        assert!(flags.contains(flag), "{name} has no flag");
    }
}

#[test]
fn flags_win_over_the_recipe_and_targets_exclude_each_other() {
    let parse = |args: &[&str]| crate::Cli::try_parse_from([&["lsb"], args].concat());
    assert!(parse(&["compress", "m", "--ratio", "5", "--bpw", "3"]).is_err());
    assert!(parse(&["compress", "m", "--rule", "noequals"]).is_err());
    assert!(parse(&["compress", "m", "--prefetch-enabled=false", "--target-size", "2.4GB"]).is_ok());
    assert!(parse(&["compress"]).is_err());

    let temp = tempfile::tempdir().unwrap();
    let recipe = temp.path().join("lsb.toml");
    std::fs::write(&recipe, "target_ram_mb = 200\ncodec = \"rtn:4\"\nrules = [\"norm=raw\"]\n").unwrap();
    let recipe = recipe.to_str().unwrap();
    let cli =
        parse(&["compress", "m", "--config", recipe, "--codec", "ternary", "--rule", "head=raw"]).unwrap();
    let crate::Verb::Compress(args) = cli.verb else { panic!() };
    let config = args.request().unwrap().config;
    assert_eq!(config.target_ram_mb, 200);
    assert_eq!(config.codec.as_deref(), Some("ternary"));
    assert_eq!(config.rules.iter().map(ToString::to_string).collect::<Vec<_>>(), ["norm=raw", "head=raw"]);
}

fn request(args: &[&str]) -> crate::verb::recipe::Request {
    let cli = crate::Cli::try_parse_from([&["lsb", "compress", "m"], args].concat()).unwrap();
    let crate::Verb::Compress(args) = cli.verb else { panic!() };
    args.request().unwrap()
}

#[test]
fn switches_take_a_value_and_stand_alone() {
    assert!(!request(&["--prefetch-enabled=false"]).config.prefetch_enabled);
    let adaptive = |flag: &str| request(&[flag]).config.adaptive_precision;
    assert_eq!(adaptive("--adaptive-precision"), AdaptivePrecision::Threshold);
    assert_eq!(adaptive("--adaptive-precision=measured"), AdaptivePrecision::Measured);
    assert!(request(&["--recipe", "/dev/null"]).config == lsb_stream::CompressConfig::default());
    let parse = |flag: &str| crate::Cli::try_parse_from(["lsb", "compress", "m", flag]);
    assert!(parse("--prefetch-enabled=perhaps").is_err());
}

#[test]
fn numbers_out_of_range_are_refused_before_any_work() {
    let refused = [
        "--target-ram-mb=5",
        "--target-ram-mb=99999999999999",
        "--threads=100000",
        "--min-snr=nan",
        "--max-bpw=inf",
        "--shard-size=0",
        "--target-size=5XB",
    ];
    for flag in refused {
        assert!(crate::Cli::try_parse_from(["lsb", "compress", "m", flag]).is_err(), "{flag}");
    }
    // Those that the configuration itself checks.
    for flag in ["--ratio=nan", "--ratio=-1", "--outlier-ratio=0.7", "--quality-threshold=-1"] {
        let cli = crate::Cli::try_parse_from(["lsb", "compress", "m", flag]).unwrap();
        let crate::Verb::Compress(args) = cli.verb else { panic!() };
        assert!(args.request().is_err(), "{flag}");
    }
}

#[test]
fn every_verb_that_computes_takes_a_number_of_threads() {
    let verbs: [&[&str]; 10] = [
        &["compress", "m"],
        &["calibrate", "m", "-o", "o"],
        &["tune", "p", "--against", "m", "-o", "o"],
        &["validate", "p", "--against", "m"],
        &["eval", "p", "--text", "t"],
        &["bench", "m", "--text", "t"],
        &["run", "p", "--prompt", "t"],
        &["embed", "p"],
        &["decompress", "p", "-o", "o"],
        &["diff", "a", "b"],
    ];
    for verb in verbs {
        let parse = |n: &str| {
            crate::Cli::try_parse_from(["lsb"].iter().chain(verb).chain(&["--threads", n]).copied())
        };
        for n in ["0", "1", "4096"] {
            parse(n).unwrap_or_else(|e| panic!("{verb:?} --threads {n}: {e}"));
        }
        let refused = parse("4097").unwrap_err().to_string();
        assert!(refused.contains("from 0 to 4096"), "{refused}");
    }
}

#[test]
fn a_storage_limit_alone_is_a_size_to_aim_for() {
    use lsb_stream::Target;
    assert_eq!(request(&[]).config.target, None);
    assert!(!request(&[]).storage_asked);
    let alone = request(&["--target-storage-gb", "2.5"]);
    assert_eq!((alone.config.target, alone.storage_asked), (Some(Target::Bytes(2_500_000_000)), true));
    let beside = request(&["--target-storage-gb", "2.5", "--bpw", "3"]);
    assert_eq!(beside.config.target, Some(Target::Bpw(3.0)));
    assert_eq!(request(&["--target-storage-gb", "2.5", "--codec", "rtn:4"]).config.target, None);
}

#[test]
fn a_recipe_asks_for_the_same_again_and_for_no_more() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("lsb.toml");
    let again = |flags: &[&str]| {
        let first = request(flags);
        std::fs::write(&path, first.recipe().unwrap()).unwrap();
        let second = request(&["--config", path.to_str().unwrap()]);
        assert_eq!(second.storage_asked, first.storage_asked, "{flags:?}");
        (first, second)
    };
    let (first, second) = again(&["--ratio", "5.63", "--rule", "a=raw", "--rule", "b=rtn:bits=3,group=64"]);
    assert_eq!(second.config, first.config);
    assert!(!second.quality_asked);
    let (first, second) = again(&["--quality-threshold", "2", "--target-storage-gb", "1", "--codec", "raw"]);
    assert_eq!(second.config, first.config);
    assert!(second.quality_asked && second.storage_asked);
    let (first, second) = again(&["--overwrite", "--restart"]);
    assert!(first.config.overwrite && !second.config.overwrite && !second.config.restart);
}

#[test]
fn the_reference_page_names_every_verb_and_every_option() {
    let page = include_str!("../../../../docs/command-line.md");
    let command = crate::Cli::command();
    for verb in command.get_subcommands().filter(|v| v.get_name() != "help") {
        assert!(page.contains(&format!("| `lsb {}", verb.get_name())), "{}", verb.get_name());
    }
    let compress = command.find_subcommand("compress").unwrap();
    let longs = compress.get_arguments().filter_map(|a| a.get_long());
    for long in longs.filter(|l| !["max-layers", "dry-run", "full", "json"].contains(l)) {
        assert!(page.contains(&format!("`--{long}")), "--{long}");
    }
    let config = serde_json::to_value(lsb_stream::CompressConfig::default()).unwrap();
    for name in config.as_object().unwrap().keys() {
        let listed = [format!("`{name}`"), format!("`{name}."), format!("`{name} =")];
        assert!(listed.iter().any(|l| page.contains(l)), "{name}");
    }
}
