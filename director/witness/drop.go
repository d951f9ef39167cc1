package witness

import (
	"fmt"
	"sync/atomic"
)

// Drop says why a datagram was thrown away. Zero means that it was not.
type Drop uint8

// The reasons, in the order in which they are found.
const (
	Kept      Drop = iota
	Source         // a question from no director's address, an answer from none that was asked
	Short          // fewer bytes than a datagram of this protocol
	Long           // more bytes
	Alien          // not of this protocol
	Skewed         // of another version of this protocol
	Forged         // the HMAC is wrong: another cluster's or real server's key, or an attack
	Malformed      // authentic, and yet its fields make no sense
	Stray          // an answer where a question is due, or to another question
	Replayed       // one that has come more often than it is sent
	Busy           // more questions than are answered
	Alone          // the asker is the only director this real server knows
	drops          // how many there are
)

var dropNames = [drops]string{
	"kept", "source", "short", "long", "alien", "version", "forged",
	"malformed", "stray", "replayed", "busy", "alone",
}

func (d Drop) String() string {
	if d >= drops {
		return fmt.Sprintf("drop(%d)", uint8(d))
	}
	return dropNames[d]
}

// Tally counts datagrams by what became of them. Its zero value is empty; it is
// safe for concurrent use.
type Tally struct{ counts [drops]atomic.Uint64 }

func (t *Tally) add(d Drop) { t.counts[d].Add(1) }

// Dropped is how many were dropped, by reason; every reason is there.
func (t *Tally) Dropped() map[string]uint64 {
	all := make(map[string]uint64, drops-1)
	for d := Source; d < drops; d++ {
		all[d.String()] = t.counts[d].Load()
	}
	return all
}

// Kept is how many were of use: questions that were answered, answers that count.
func (t *Tally) Kept() uint64 { return t.counts[Kept].Load() }
