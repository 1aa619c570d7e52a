//! Colours of owners: light enough for black text, apart enough to tell slices, and like the
//! tenant's name where that is a colour.

use crate::owner::Owner;

/// Red, green, blue.
pub(crate) type Rgb = [u8; 3];

const HOST: Rgb = [0xd5, 0xd5, 0xd5];
const FREE: Rgb = [0xff, 0xff, 0xff];
const ISOLATED: Rgb = [0xf4, 0xf4, 0xe2];
const OFFLINE: Rgb = [0xa8, 0xa8, 0xa8];

/// Hues of tenants that are called like a colour, in degrees.
const NAMED: [(&str, u32); 8] = [
    ("red", 0),
    ("orange", 30),
    ("yellow", 52),
    ("green", 120),
    ("cyan", 180),
    ("blue", 215),
    ("purple", 275),
    ("pink", 330),
];

/// The colour of an owner's box.
pub(crate) fn color(owner: &Owner, owners: &[(String, Option<String>)]) -> Rgb {
    let Some(party) = owner.party() else {
        return match owner {
            Owner::Host => HOST,
            Owner::Isolated => ISOLATED,
            Owner::Offline => OFFLINE,
            _ => FREE,
        };
    };
    let hue = hue(party, owners);
    match owner {
        Owner::Emulator { .. } | Owner::SharedPool { .. } => from_hsl(hue, 55, 76),
        Owner::Idle { .. } => from_hsl(hue, 30, 93),
        _ => from_hsl(hue, 80, 88),
    }
}

fn hue(party: usize, owners: &[(String, Option<String>)]) -> u32 {
    let tenant = |index: usize| owners.get(index).and_then(|(_, tenant)| tenant.as_deref());
    let named = |index| {
        let tenant = tenant(index)?.to_lowercase();
        NAMED
            .iter()
            .find(|(name, _)| *name == tenant)
            .map(|(_, hue)| *hue)
    };
    // Slices of one tenant differ a little; those of nameless tenants go round the circle by the
    // golden angle, which never comes back to where it was.
    match named(party) {
        Some(hue) => {
            let before = (0..party)
                .filter(|index| named(*index) == Some(hue))
                .count();
            (hue + 360 + 14 * (before as u32 % 3)) % 360
        }
        None => (40 + 137 * (party as u32 % 360)) % 360,
    }
}

/// Hue in degrees, saturation and lightness in percent.
fn from_hsl(hue: u32, saturation: u32, lightness: u32) -> Rgb {
    let (hue, s, l) = (
        f64::from(hue),
        f64::from(saturation) / 100.0,
        f64::from(lightness) / 100.0,
    );
    let a = s * l.min(1.0 - l);
    let channel = |n: f64| {
        let k = (n + hue / 30.0) % 12.0;
        let value = l - a * (k - 3.0).min(9.0 - k).clamp(-1.0, 1.0);
        (value * 255.0).round() as u8
    };
    [channel(0.0), channel(8.0), channel(4.0)]
}

/// `#d5d5d5`.
pub(crate) fn hex([red, green, blue]: Rgb) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_called_like_a_colour_have_it() {
        let owners = [
            ("a".to_owned(), Some("red".to_owned())),
            ("b".to_owned(), Some("blue".to_owned())),
        ];
        let [r, g, b] = color(&Owner::Vcpu { slice: 0, vcpu: 0 }, &owners);
        assert!(r > g && r > b, "{r} {g} {b}");
        let [r, g, b] = color(&Owner::Vcpu { slice: 1, vcpu: 0 }, &owners);
        assert!(b > g && b > r, "{r} {g} {b}");
    }

    #[test]
    fn black_text_can_be_read_on_every_colour() {
        let owners: Vec<_> = (0..300).map(|i| (format!("s{i}"), None)).collect();
        for slice in 0..300 {
            for owner in [
                Owner::Vcpu { slice, vcpu: 0 },
                Owner::Emulator { slice },
                Owner::Idle { slice },
                Owner::Offline,
            ] {
                // WCAG 2: relative luminance; 7:1 against black needs 0.3.
                let linear = |c: u8| (f64::from(c) / 255.0).powf(2.2);
                let [r, g, b] = color(&owner, &owners).map(linear);
                assert!(0.2126 * r + 0.7152 * g + 0.0722 * b > 0.3, "{owner:?}");
            }
        }
    }
}
