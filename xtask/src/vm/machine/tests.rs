use super::*;

fn job(command: &[&str]) -> Job {
    Job {
        command: command.iter().map(Into::into).collect(),
        env: vec![("TRUNKLINE_X".into(), "it's".into())],
        directory: "/a b".into(),
        processor: Processor::Kvm { cpus: 2 },
        memory_mib: 2048,
        limit: None,
    }
}

#[test]
fn the_command_reaches_the_shell_word_by_word() {
    let script = script(&job(&["echo", "a  b", "$HOME", "it's"]));
    assert!(script.ends_with("cd '/a b' && exec 'echo' 'a  b' '$HOME' 'it'\\''s'\n"), "{script}");
    assert!(script.contains("export TRUNKLINE_X='it'\\''s'\n"), "{script}");
}

#[test]
fn a_command_that_began_is_told_from_one_that_did_not() {
    for (report, progress) in
        [("", Progress::Nothing), ("begun\n", Progress::Begun), ("begun\n101\n", Progress::Ended(101))]
    {
        assert_eq!(parse(report).unwrap(), progress);
    }
    assert!(parse("begun\nwhat?\n").is_err());
}

#[test]
fn kvm_needs_a_processor_that_virtualizes() {
    assert!(virtualizes("processor\t: 0\nflags\t\t: fpu svm\n"));
    assert!(!virtualizes("processor\t: 0\nflags\t\t: fpu sse\nbugs: vmx\n"));
}

#[test]
fn only_an_emulated_kernel_goes_without_mitigations() {
    for processor in [Processor::Emulated { cpus: 2 }, Processor::Counting] {
        assert!(kernel_arguments(processor).contains("mitigations=off"));
    }
    assert!(!kernel_arguments(Processor::Kvm { cpus: 2 }).contains("mitigations"));
}

#[test]
fn only_a_counting_processor_moves_the_clock() {
    let value = |processor: Processor, wanted: &str| {
        processor.options("6.12.1").into_iter().find_map(|(name, value)| (name == wanted).then_some(value))
    };
    for (processor, accelerator, cpus, clock) in [
        (Processor::Kvm { cpus: 2 }, "kvm", "2", None),
        (Processor::Emulated { cpus: 2 }, "tcg,thread=multi", "2", None),
        (Processor::Counting, "tcg,thread=single", "1", Some("shift=0,sleep=off,align=off")),
    ] {
        assert_eq!(value(processor, "-accel").as_deref(), Some(accelerator));
        assert_eq!(value(processor, "-smp").as_deref(), Some(cpus));
        assert_eq!(value(processor, "-icount").as_deref(), clock);
    }
}

#[test]
fn the_kernels_complaints_are_found() {
    let console = "[    1.0] all well\r\n[    2.0] WARNING: CPU: 0 PID: 1 at net/core/dev.c:1\r\n";
    assert_eq!(complaints(console), ["[    2.0] WARNING: CPU: 0 PID: 1 at net/core/dev.c:1"]);
}

#[test]
fn a_comma_in_a_path_does_not_end_an_option() {
    assert_eq!(comma(Path::new("/a,b")), "/a,,b");
}
