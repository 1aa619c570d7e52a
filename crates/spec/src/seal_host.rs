//! The wire's host → the sealed one.

use bmslice_model::KernelArg;

use crate::decode::Field;
use crate::diagnostic::Mistake;
use crate::seal::Sealer;
use crate::sealed::{Governor, HostSpec, Isolation, KernelSettings, TransparentHugePages};
use crate::wire;

impl Sealer<'_> {
    pub(crate) fn host(&self, field: Field<wire::Host>) -> HostSpec {
        let default = HostSpec::default();
        let Field::Given(host, _) = field else {
            return default;
        };
        let (cores, per_numa) = match host.reserve {
            Field::Given(reserve, _) => (
                self.count(reserve.cores, 1, "the number of reserved cores"),
                Self::flag(&reserve.per_numa, true),
            ),
            Field::Absent | Field::Bad(_) => (1, true),
        };
        HostSpec {
            reserve_cores: cores,
            reserve_per_numa: per_numa,
            headroom_cores: default.headroom_cores,
            isolation: match host.isolation {
                Field::Given(wire::Isolation::Dynamic, _) => Isolation::Dynamic,
                Field::Given(wire::Isolation::None, _) => Isolation::None,
                _ => Isolation::Boot,
            },
            tickless: Self::flag(&host.tickless, false),
            idle_states: Self::chosen(&host.idle_states),
            mitigations: Self::chosen(&host.mitigations),
            settings: KernelSettings {
                ksm: match host.ksm {
                    Field::Given(ksm, _) => Some(ksm),
                    Field::Absent | Field::Bad(_) => None,
                },
                transparent_huge_pages: match host.transparent_huge_pages {
                    Field::Given(pages, _) => Some(match pages {
                        wire::TransparentHugePages::Always => TransparentHugePages::Always,
                        wire::TransparentHugePages::Madvise => TransparentHugePages::Madvise,
                        wire::TransparentHugePages::Never => TransparentHugePages::Never,
                    }),
                    Field::Absent | Field::Bad(_) => None,
                },
                governor: match host.governor {
                    Field::Given(governor, _) => Some(match governor {
                        wire::Governor::Performance => Governor::Performance,
                        wire::Governor::Schedutil => Governor::Schedutil,
                        wire::Governor::Ondemand => Governor::Ondemand,
                        wire::Governor::Conservative => Governor::Conservative,
                        wire::Governor::Powersave => Governor::Powersave,
                    }),
                    Field::Absent | Field::Bad(_) => None,
                },
            },
            images: Self::text(host.images).unwrap_or(default.images),
            kernel_args: self.kernel_args(host.kernel_args),
            fall_back_minutes: self.count(
                host.fall_back_minutes,
                default.fall_back_minutes,
                "the minutes until the server falls back",
            ),
        }
    }

    /// A choice that is the same word in the file and in the sealed spec.
    fn chosen<T: Copy + Default>(field: &Field<T>) -> T {
        match field {
            Field::Given(chosen, _) => *chosen,
            Field::Absent | Field::Bad(_) => T::default(),
        }
    }

    fn kernel_args(&self, field: Field<Vec<Field<String>>>) -> Vec<KernelArg> {
        let Field::Given(args, _) = field else {
            return Vec::new();
        };
        let mut sealed = Vec::new();
        for (i, arg) in args.into_iter().enumerate() {
            let read = match arg {
                Field::Given(text, span) => match text.parse::<KernelArg>() {
                    Ok(arg) => Some(arg),
                    Err(error) => {
                        let mistake = Mistake::new(span, error.to_string());
                        let hint = "write one argument an element, as `[nosmt, quiet]`";
                        self.sink.note(mistake.hint(hint));
                        None
                    }
                },
                Field::Absent | Field::Bad(_) => None,
            };
            // What could not be read keeps its place, for what the rules say of the others.
            sealed.extend(read.or_else(|| format!("unread.{i}").parse().ok()));
        }
        sealed
    }
}
