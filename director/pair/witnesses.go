package pair

import (
	"context"
	"time"

	"lvstun/director/election"
	"lvstun/director/vip"
)

// maxAsking bounds the questions to witnesses that are under way, should
// AskWitnesses not heed its context.
const maxAsking = 4

// look asks the gateway for a sign of life, and the witnesses for the peer,
// without waiting for either.
func (l *loop) look(a election.Look) {
	if first, ok := lowest(l.cfg.VIPs); ok && a.VIP {
		l.holder.order(order{kind: orderAskFor, vip: first})
	}
	l.holder.order(order{kind: orderAskGateway})
	ask := l.cfg.AskWitnesses
	if ask == nil || l.asking == maxAsking {
		return
	}
	l.asking++
	l.work.Go(func() {
		ctx, cancel := context.WithTimeout(l.inner, a.Within)
		report := ask(ctx)
		cancel()
		l.p.post(l.inner, func(l *loop) {
			l.asking--
			l.p.board.witnessed(report, time.Now())
			l.step(election.Witnessed{
				Round: a.Round, Asked: report.Asked, Answered: report.Answered, PeerActive: report.PeerActive,
			})
		})
	})
}

// hearing is what the loop hears of the VIPs' links.
type hearing struct {
	sighted func(vip.VIP, vip.Sighting)
	gateway func()       // spoke
	fault   func(string) // of the links, when it changes
	deaf    func(error)  // links cannot be watched
}

func (p *Pair) hearing(ctx context.Context) hearing {
	return hearing{
		sighted: func(v vip.VIP, s vip.Sighting) { p.post(ctx, func(l *loop) { l.sighted(v, s) }) },
		gateway: func() { p.post(ctx, func(l *loop) { l.step(election.Sign{}) }) },
		fault: func(fault string) {
			p.post(ctx, func(l *loop) { l.linkFault = fault; l.condition() })
		},
		deaf: func(err error) {
			p.log.Error("the VIPs' links are not watched", "err", err)
			p.board.problem("links", err.Error())
		},
	}
}
