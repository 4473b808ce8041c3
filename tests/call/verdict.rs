//! What a call must have been like, and the table that sums it up.

use std::fmt;
use std::net::IpAddr;

use crate::browser::Browser;
use crate::call::Call;
use crate::lab::search::assert_nothing;
use crate::lab::{Party, SERVICE};
use crate::leg::Tally;
use crate::reach::Via;

/// Of about 150 frames in ten seconds; the rest is for a slow machine.
const FRAMES: u64 = 50;

/// Of about 500 audio packets in ten seconds.
const AUDIO_PACKETS: u64 = 250;

/// Why a check is dropped that comes before the other party has named its sender, or after it has
/// given that allocation up.
const REFUSALS: [&str; 4] = ["no_permission", "not_permitted", "not_named", "no_landing"];

/// The sum over all series of this name with these labels.
fn sum(numbers: &str, name: &str, labels: &[(&str, &str)]) -> u64 {
    let mut marks = vec![format!("{name}{{")];
    marks.extend(
        labels
            .iter()
            .map(|(key, value)| format!("{key}=\"{value}\"")),
    );
    numbers
        .lines()
        .filter(|line| line.starts_with(name))
        .filter(|line| marks.iter().all(|mark| line.contains(mark)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

fn packets(numbers: &str, path: &str, direction: &str) -> u64 {
    let labels = [("path", path), ("direction", direction)];
    sum(numbers, "taciturn_packets_total", &labels)
}

fn refusals(numbers: &str) -> u64 {
    let each = REFUSALS.map(|reason| sum(numbers, "taciturn_drops_total", &[("reason", reason)]));
    each.iter().sum()
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
            let (name, local, remote) = (seen.party.name(), &seen.local, &seen.remote);
            assert_eq!(local, "relay", "the local candidate of {name}");
            // One that a check brought before signalling did is peer-reflexive, and stays so in
            // Firefox (RFC 8445 §7.3.1.3).
            let is_relay = |address: IpAddr| SERVICE.all().contains(&address);
            let found_by_check = self.caller(seen.party).browser == Browser::Firefox
                && remote == "prflx"
                && seen.remote_address.parse().is_ok_and(is_relay);
            assert!(
                remote == "relay" || found_by_check,
                "the remote candidate of {name}: {remote}"
            );
        }
    }

    /// Either browser is the one asked for, and reached the relay by the ways that it was given:
    /// an allocation by each of them, media by the one that it reports, and nothing by another.
    pub(crate) fn assert_ways(&self) {
        for seen in &self.observations {
            let (name, agent, via) = (seen.party.name(), &seen.browser, &seen.via);
            let (leg, caller) = (self.leg(seen.party), self.caller(seen.party));
            let ways = caller.urls.ways();
            assert!(
                agent.contains(caller.browser.agent()),
                "{name} is not {:?}: {agent}",
                caller.browser
            );
            assert_eq!(leg.by_other_ways(), 0, "packets of {name} by other ways");
            let others = Via::ALL.into_iter().filter(|via| !ways.contains(via));
            for other in others {
                let packets = leg.tally(other).packets;
                assert_eq!(packets, 0, "packets of {name} by {}", other.name());
            }
            let is_named = ways.iter().any(|way| way.name() == via);
            assert!(is_named, "{name} says that it used {via}");
            // Debian's coturn speaks TLS 1.2, which is not opened here.
            if leg.unread > 0 && !self.by_taciturn {
                continue;
            }
            assert_eq!(leg.unread, 0, "unread TLS connections of {name}");
            for way in &ways {
                let (way, tally) = (way.name(), leg.tally(*way));
                assert!(tally.allocations > 0, "{name} has no allocation by {way}");
                if way == via {
                    let media = tally.media;
                    assert!(media > 500, "{name} sent {media} media packets by {way}");
                }
            }
            // The control: what the relay tells a client of itself is found inside its streams.
            assert!(
                ways == [Via::Udp] || leg.is_mapped_in_streams(seen.party.addresses()),
                "the search does not see into the streams of {name}"
            );
        }
    }

    /// Nothing on either leg names the other party.
    pub(crate) fn assert_neither_is_shown(&self) {
        for party in Party::BOTH {
            let found = self.leg(party).findings(party.other().addresses());
            assert_nothing(&found, &format!("on the leg of {}", party.name()));
        }
    }

    /// Of all application datagrams that the captures show on their way to the relay, be they
    /// media, DTLS or connectivity checks, it counted 99 of 100 on path `hairpin`, and none on
    /// another path. Left out are those that it counted as refused, which only checks may be: a
    /// browser makes them from and to allocations that are never permitted. The two counts come from
    /// two places, so that either may be the greater by as much; twice counted would be twice as
    /// much.
    pub(crate) fn assert_hairpin(&self) {
        if !self.by_taciturn {
            return;
        }
        let [all, media, checks] = self.packets_to_relay().map(|count| count as u64);
        assert!(
            media > 1000,
            "only {media} media packets were sent to the relay"
        );
        let hairpin = packets(&self.last_numbers, "hairpin", "in");
        let refused = refusals(&self.last_numbers);
        assert!(refused <= checks, "{refused} refused, {checks} checks");
        assert!(
            all.abs_diff(hairpin + refused) * 100 <= all,
            "{all} application datagrams were sent to the relay, {hairpin} counted as hairpin, \
             {refused} refused"
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
        writeln!(f, "party   local    remote   by   frames  audio  captured")?;
        for seen in &self.observations {
            writeln!(
                f,
                "{:7} {:8} {:8} {:4} {:6} {:6} {:9}",
                seen.party.name(),
                seen.local,
                seen.remote,
                seen.via,
                seen.frames_decoded,
                seen.audio_packets,
                self.leg(seen.party).packets.len(),
            )?;
        }
        for seen in &self.observations {
            let (name, leg) = (seen.party.name(), self.leg(seen.party));
            writeln!(f, "{name}: {}", seen.browser)?;
            for way in self.caller(seen.party).urls.ways() {
                writeln!(f, "{name} by {}: {}", way.name(), leg.tally(way))?;
            }
            if leg.unread > 0 {
                writeln!(f, "{name}: {} TLS connections are not opened", leg.unread)?;
            }
        }
        let [all, media, checks] = self.packets_to_relay();
        let refused = refusals(&self.last_numbers);
        write!(
            f,
            "to the relay: {all} datagrams, {media} of them media, {checks} checks; {refused} refused"
        )?;
        for path in ["hairpin", "relay", "indication"] {
            let [inward, outward] =
                ["in", "out"].map(|direction| packets(&self.last_numbers, path, direction));
            write!(f, "; {path} {inward} in, {outward} out")?;
        }
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} packets, {} allocations, {} permissions, {} channels, {} Send indications, \
             {} ChannelData, {} media",
            self.packets,
            self.allocations,
            self.permissions,
            self.channels,
            self.indications,
            self.channel_data,
            self.media
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{packets, refusals};

    #[test]
    fn packets_are_summed_over_other_labels() {
        let numbers = "# TYPE taciturn_packets_total counter\n\
            taciturn_packets_total{direction=\"in\",path=\"hairpin\",worker=\"0\"} 40\n\
            taciturn_packets_total{direction=\"in\",path=\"hairpin\",worker=\"1\"} 2\n\
            taciturn_packets_total{direction=\"out\",path=\"hairpin\"} 1000\n";
        assert_eq!(packets(numbers, "hairpin", "in"), 42);
        assert_eq!(packets(numbers, "relay", "in"), 0);
    }

    #[test]
    fn refusals_are_told_from_other_drops() {
        let numbers = "taciturn_drops_total{reason=\"not_named\"} 3\n\
            taciturn_drops_total{reason=\"queue_full\"} 50\n\
            taciturn_drops_total{reason=\"not_permitted\"} 4\n";
        assert_eq!(refusals(numbers), 7);
    }
}
