package director

import (
	"context"
	"net/netip"

	"lvstun/director/pair"
	"lvstun/director/witness"
)

// AskWitnesses asks a few registered real servers whether another director is
// active now. The pair calls it from a goroutine of its own before a takeover.
func (d *Director) AskWitnesses(ctx context.Context) pair.WitnessReport {
	var registered []witness.Witness
	for _, l := range d.registry.Leases() {
		if !l.Gone {
			registered = append(registered, witness.Witness{
				Name: l.Name, Addr: netip.AddrPortFrom(l.Address, witness.Port), Key: d.witnessKey(l.Name),
			})
		}
	}
	answers, err := d.asker.Ask(ctx, registered)
	if err != nil {
		d.log.Debug("no witness could be asked", "err", err)
	}
	report := pair.WitnessReport{Asked: len(answers)}
	for _, a := range answers {
		if a.Answered {
			report.Answered++
		}
		if a.Role == witness.Active {
			report.PeerActive++
		}
	}
	return report
}
