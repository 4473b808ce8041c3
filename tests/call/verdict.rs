//! What a call must have been like, and the table that sums it up.

use std::fmt;

use crate::call::Call;

/// Of about 150 frames in ten seconds; the rest is for a slow machine.
const FRAMES: u64 = 50;

/// Of about 500 audio packets in ten seconds.
const AUDIO_PACKETS: u64 = 250;

/// The sum of `taciturn_packets_total` over all series with these labels.
fn packets(numbers: &str, path: &str, direction: &str) -> u64 {
    let labels = [
        format!("path=\"{path}\""),
        format!("direction=\"{direction}\""),
    ];
    numbers
        .lines()
        .filter(|line| line.starts_with("taciturn_packets_total{"))
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

impl Call {
    /// Frames decode and sound arrives on both sides.
    pub(crate) fn assert_media_flowed(&self) {
        for seen in &self.observations {
            let (name, frames, audio) =
                (seen.party.name(), seen.frames_decoded, seen.audio_packets);
            assert!(frames >= FRAMES, "{name} decoded {frames} frames");
            assert!(
                audio >= AUDIO_PACKETS,
                "{name} received {audio} audio packets"
            );
        }
    }

    /// Both browsers settled on a pair of relayed candidates.
    pub(crate) fn assert_relayed(&self) {
        for seen in &self.observations {
            let pair = (seen.local.as_str(), seen.remote.as_str());
            assert_eq!(
                pair,
                ("relay", "relay"),
                "the pair that {} selected",
                seen.party.name()
            );
        }
    }

    /// Of all application datagrams that the captures show on their way to the relay, be they
    /// media, DTLS or connectivity checks, it counted at least 99 of 100 on path `hairpin`, and
    /// none on another path.
    pub(crate) fn assert_hairpin(&self) {
        let [all, media] = self.packets_to_relay().map(|count| count as u64);
        assert!(
            media > 1000,
            "only {media} media packets were sent to the relay"
        );
        if !self.by_taciturn {
            return;
        }
        let hairpin = packets(&self.last_numbers, "hairpin", "in");
        assert!(
            hairpin * 100 >= all * 99 && hairpin <= all,
            "{all} application datagrams were sent to the relay, {hairpin} counted as hairpin"
        );
        for path in ["relay", "indication"] {
            for direction in ["in", "out"] {
                let count = packets(&self.last_numbers, path, direction);
                assert_eq!(count, 0, "path {path}, {direction}");
            }
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "party   local    remote   frames  audio  captured")?;
        for seen in &self.observations {
            writeln!(
                f,
                "{:7} {:8} {:8} {:6} {:6} {:9}",
                seen.party.name(),
                seen.local,
                seen.remote,
                seen.frames_decoded,
                seen.audio_packets,
                self.leg(seen.party).len(),
            )?;
        }
        let [all, media] = self.packets_to_relay();
        write!(f, "to the relay: {all} datagrams, {media} of them media")?;
        for path in ["hairpin", "relay", "indication"] {
            let [inward, outward] =
                ["in", "out"].map(|direction| packets(&self.last_numbers, path, direction));
            write!(f, "; {path} {inward} in, {outward} out")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::packets;

    #[test]
    fn packets_are_summed_over_other_labels() {
        let numbers = "# TYPE taciturn_packets_total counter\n\
            taciturn_packets_total{direction=\"in\",path=\"hairpin\",worker=\"0\"} 40\n\
            taciturn_packets_total{direction=\"in\",path=\"hairpin\",worker=\"1\"} 2\n\
            taciturn_packets_total{direction=\"out\",path=\"hairpin\"} 1000\n";
        assert_eq!(packets(numbers, "hairpin", "in"), 42);
        assert_eq!(packets(numbers, "relay", "in"), 0);
    }
}
