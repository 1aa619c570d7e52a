//! Kernel arguments in boot loader entries: whatever the user has there stays.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use bmslice_model::KernelArg;
use bmslice_render::{
    Form, args_digest, args_in, own_args, trial_entry, trial_options, with_args, without_args,
};
use proptest::prelude::*;

const FORMS: [Form; 4] = [
    Form::Entry,
    Form::Cmdline,
    Form::GrubEntry,
    Form::GrubbyCmdline,
];

/// A word of a user's: also one that reads as ours, and such as GRUB fills in.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z_.]{1,6}",
        "[a-z]{1,4}=[a-z0-9,:/-]{0,8}",
        Just("iommu=pt".to_owned()),
        Just("hugepagesz=1G".to_owned()),
        Just("dyndbg=\"file a.c +p\"".to_owned()),
        Just("$tuned_params".to_owned()),
    ]
}

/// A line of words, with the blanks that people leave.
fn words() -> impl Strategy<Value = (Vec<String>, String)> {
    let gap = prop_oneof![Just(" "), Just("  "), Just("\t")];
    let pairs = prop::collection::vec((word(), gap), 1..8);
    (pairs, prop_oneof![Just(""), Just(" "), Just("\t ")]).prop_map(|(pairs, end)| {
        let mut line = String::new();
        for (at, (word, gap)) in pairs.iter().enumerate() {
            if at > 0 {
                line.push_str(gap);
            }
            line.push_str(word);
        }
        line.push_str(end);
        (pairs.into_iter().map(|(word, _)| word).collect(), line)
    })
}

fn ours() -> impl Strategy<Value = Vec<KernelArg>> {
    let arg = prop_oneof![
        Just("isolcpus=domain,managed_irq,2-11"),
        Just("iommu=pt"),
        Just("hugepagesz=1G"),
        Just("hugepages=0:2,1:2"),
        Just("nosmt"),
    ];
    prop::collection::vec(arg, 1..5)
        .prop_map(|args| args.iter().map(|arg| arg.parse().unwrap()).collect())
}

/// A text of that form around a line of words.
fn text(form: Form, line: &str, ending: &str) -> String {
    match form {
        Form::Entry | Form::GrubEntry => {
            format!("title x\n# a comment\noptions {line}{ending}linux /vmlinuz{ending}")
        }
        Form::Cmdline | Form::GrubbyCmdline => format!("{line}{ending}"),
    }
}

proptest! {
    #[test]
    fn foreign_words_stay_and_what_is_put_in_comes_out_to_the_byte(
        (foreign, line) in words(),
        ours in ours(),
        later in ours(),
        ending in prop_oneof![Just("\n"), Just("\r\n")],
    ) {
        for form in FORMS {
            let text = text(form, &line, ending);
            let put = with_args(form, &text, &ours);
            prop_assert_eq!(args_in(form, &put), Some(args_digest(&ours)));
            prop_assert_eq!(without_args(form, &put), text.clone());
            let changed = with_args(form, &put, &later);
            prop_assert_eq!(without_args(form, &changed), text);
            let left: Vec<String> = own_args(form, &changed)
                .iter()
                .flat_map(|(_, args)| args.iter().map(ToString::to_string))
                .collect();
            prop_assert_eq!(&left, &foreign, "in {:?}", changed);
        }
    }

    #[test]
    fn an_entry_on_trial_has_all_foreign_words_and_then_ours(
        (foreign, line) in words(),
        ours in ours(),
        before in ours(),
    ) {
        for form in [Form::Entry, Form::GrubEntry] {
            let base = with_args(form, &text(form, &line, "\n"), &before);
            let trial = trial_entry(form, &base, &ours);
            prop_assert!(trial.ends_with(&trial_options(&ours)));
            let all: Vec<String> = own_args(form, &trial)
                .iter()
                .flat_map(|(_, args)| args.iter().map(ToString::to_string))
                .collect();
            prop_assert_eq!(&all[..foreign.len()], &foreign[..]);
            let then: Vec<String> = ours.iter().map(ToString::to_string).collect();
            prop_assert_eq!(&all[foreign.len()..][..then.len()], &then[..]);
            if form == Form::GrubEntry {
                prop_assert_eq!(trial.matches("options ").count(), 1);
            }
        }
    }
}
