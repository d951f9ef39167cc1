package sysctl

import (
	"fmt"
	"path"
	"time"
)

// A setting that is changed back more than patience times within truce has somebody else behind it. From then on it is
// set once a truce only, until it has held for as long.
const (
	patience = 5
	truce    = time.Minute
)

// contest is the fight for one setting; the zero contest is peace.
type contest struct {
	repairs []time.Time // those that may still count, the latest last
	theirs  string      // what it was set back to when patience ended; "" while it has not
}

// repair tells whether a setting that somebody has changed to have is to be set again now.
func (c *contest) repair(now time.Time, have string) bool {
	recent := c.repairs[:0]
	for _, t := range c.repairs {
		if now.Sub(t) < truce {
			recent = append(recent, t)
		}
	}
	c.repairs = recent
	if c.theirs == "" && len(c.repairs) == patience {
		c.theirs = have
	}
	if c.theirs != "" && len(c.repairs) > 0 {
		return false
	}
	c.repairs = append(c.repairs, now)
	return true
}

// rest tells whether a setting that serves is fought for no more.
func (c *contest) rest(now time.Time) bool {
	if c.theirs == "" || now.Sub(c.repairs[len(c.repairs)-1]) < truce {
		return false
	}
	*c = contest{}
	return true
}

// alarm is the sentence for the person who can end it.
func (c *contest) alarm(key string) string {
	return fmt.Sprintf("something on this host sets %s back to %s again and again, so that it is set only once a minute: find it with grep -rs %s /etc/sysctl.conf /etc/sysctl.d /run/sysctl.d /usr/lib/sysctl.d /etc/network /etc/NetworkManager, or it is another program that manages the network",
		dotted(key), c.theirs, path.Base(key))
}
