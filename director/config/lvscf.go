package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"lvstun/director/config/lvscf"
)

// readLvsCf reads piranha's lvs.cf into the file that says the same in director.yaml. Where a key is left out it has
// pulse's default, not lvstun's.
func readLvsCf(data []byte, found *findings) *file {
	root, problems := lvscf.Parse(data)
	t := &translation{findings: found, file: new(file), at: map[string]position{"": {}, "name": {what: "LVSTUN_NAME"}}}
	found.where = t.position
	for _, p := range problems {
		severity := Error
		if p.Warning {
			severity = Warning
		}
		found.add(Problem{Line: p.Line, What: p.What, Value: p.Value, Why: p.Why, Severity: severity})
	}
	if err := decode(nil, t.file); err != nil {
		found.add(Problem{Why: err.Error()})
		return nil
	}
	t.global(root)
	for i := range root.Blocks {
		switch b := &root.Blocks[i]; b.Kind {
		case "virtual":
			t.virtual(b)
		case "failover":
			t.add(Problem{Line: b.Line, What: b.Title(), Severity: Warning,
				Why: "has no effect: failover blocks are for service = fos, which is not served"})
		}
	}
	return t.file
}

// translation writes blocks of lvs.cf into a file, and remembers where each value came from.
type translation struct {
	*findings
	file *file
	at   map[string]position // by path in director.yaml
}

type position struct {
	line int
	what string
}

// position answers findings.where.
func (t *translation) position(path string) (int, string) {
	for {
		if p, ok := t.at[path]; ok {
			return p.line, p.what
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
}

// block is a block of lvs.cf and where it belongs in director.yaml.
type block struct {
	*translation
	*lvscf.Block
	title string // "" or "virtual HTTP: server rs1: "
	path  string // "" or "services[0].servers[0]."
}

// take finds the entry of key and notes that it is the value of fields, paths within the block's. It returns false
// if the key is absent or of the wrong type. An absent key is noted as well, for a rule may ask for it.
func (b *block) take(key string, fields ...string) (lvscf.Entry, bool) {
	e, present := b.Get(key)
	p := position{line: e.Line, what: b.title + key}
	if !present {
		p.line = b.Line
	}
	for _, f := range fields {
		b.at[b.path+f] = p
		if e.Bad {
			b.broken[b.path+f] = true
		}
	}
	return e, present && !e.Bad
}

func (b *block) int(key string, absent int, fields ...string) int {
	if e, ok := b.take(key, fields...); ok {
		return e.Int()
	}
	return absent
}

func (b *block) seconds(key string, absent int, fields ...string) time.Duration {
	return time.Duration(b.int(key, absent, fields...)) * time.Second
}

func (b *block) text(key, absent string, fields ...string) string {
	if e, ok := b.take(key, fields...); ok {
		return e.Values[0].Text
	}
	return absent
}

func (b *block) addr(key string, fields ...string) netip.Addr {
	if e, ok := b.take(key, fields...); ok {
		return e.Addr()
	}
	return netip.Addr{}
}

// idle warns of a key that is there but has no effect. The values in nothing ask for none.
func (b *block) idle(key, why string, nothing ...string) {
	e, present := b.Get(key)
	value := e.Values.String()
	if !present || e.Bad || slices.Contains(nothing, value) {
		return
	}
	b.add(Problem{Line: e.Line, What: b.title + key, Value: value, Why: "has no effect: " + why, Severity: Warning})
}

func (t *translation) global(root *lvscf.Block) {
	b := &block{translation: t, Block: root}
	if e, ok := b.take("service"); ok && e.Values[0].Text == "fos" {
		b.refuse(e, "the failover of local daemons is not served: only service = lvs is")
	}
	switch e, ok := b.take("network"); {
	case !ok && !e.Bad:
		b.add(Problem{What: "network", Why: "is missing, which means nat: only tunnels are served, so write network = tunnel"})
	case ok && e.Values[0].Text != "tunnel":
		b.refuse(e, "is not served yet: only tunnels are, so write network = tunnel (the real servers then need the VIP on tunl0, which lvs-agent sets up)")
	}
	b.heartbeat()
	if b.int("syncdaemon", 0, "sync") == 1 {
		b.file.Sync = &syncDaemon{
			Device: b.text("syncd_iface", "eth0", "sync.device"),
			ID:     b.int("syncd_id", 0, "sync.id"),
		}
	} else {
		b.idle("syncd_iface", "syncdaemon is not 1")
		b.idle("syncd_id", "syncdaemon is not 1")
	}
	for _, i := range globalIdle {
		b.idle(i.key, i.why, i.nothing...)
	}
}

func (b *block) refuse(e lvscf.Entry, why string) {
	b.add(Problem{Line: e.Line, What: b.title + e.Key, Value: e.Values.String(), Why: why})
}

func (b *block) heartbeat() {
	h := &b.file.Heartbeat
	h.Interval = b.seconds("keepalive", 2, "heartbeat.interval")
	h.Dead = b.seconds("deadtime", 5, "heartbeat.dead")
	if e, ok := b.take("heartbeat_port", "heartbeat.port"); ok {
		h.Port = e.Port()
	}
	if b.int("backup_active", 0, "heartbeat.paths") != 1 {
		return
	}
	h.Paths = []path{{
		Local: b.addr("primary", "heartbeat.paths[0].local"),
		Peer:  b.addr("backup", "heartbeat.paths[0].peer"),
	}}
	_, local := b.Get("primary_private")
	_, peer := b.Get("backup_private")
	if local || peer {
		h.Paths = append(h.Paths, path{
			Local: b.addr("primary_private", "heartbeat.paths[1].local"),
			Peer:  b.addr("backup_private", "heartbeat.paths[1].peer"),
		})
	}
}

func (t *translation) virtual(v *lvscf.Block) {
	if !t.active(v, v.Title()) {
		return
	}
	at := fmt.Sprintf("services[%d]", len(t.file.Services))
	t.at[at], t.at[at+".name"] = position{v.Line, v.Title()}, position{v.Line, v.Kind}
	b := &block{translation: t, Block: v, title: v.Title() + ": ", path: at + "."}
	var s service
	s.preset()
	s.Name = v.Name.Text
	switch e, ok := b.take("address", "vip", "device"); {
	case ok:
		s.VIP, s.Device = e.Addr(), e.Values[1].Text
	case !e.Bad:
		b.fail(at+".vip", "", "is missing: write an address and a device, such as address = 10.0.0.50 eth0:1")
		b.broken[at+".vip"], b.broken[at+".device"] = true, true
	}
	port := 80
	if e, ok := b.take("port", "port"); ok {
		port = e.Port()
	}
	s.Port = &port
	s.Protocol = b.text("protocol", "tcp", "protocol")
	s.FWMark = b.int("fwmark", 0, "fwmark")
	s.Scheduler = b.text("scheduler", "wlc", "scheduler")
	s.Persistent = b.seconds("persistent", 0, "persistent")
	if e, ok := b.take("pmask", "persistence_mask"); ok && e.MaskBits() != 32 {
		s.PersistenceMask = e.MaskBits()
	}
	s.QuiesceOnFailure = b.int("quiesce_server", 0, "quiesce_on_failure") == 1
	s.Check = b.check(&s)
	for _, i := range virtualIdle {
		b.idle(i.key, i.why, i.nothing...)
	}
	for i := range v.Blocks {
		b.server(&s, &v.Blocks[i])
	}
	t.file.Services = append(t.file.Services, s)
}

// active tells whether a block takes part, and warns if not, for in pulse leaving the key out means 0.
func (t *translation) active(b *lvscf.Block, title string) bool {
	e, present := b.Get("active")
	switch {
	case !present:
		t.add(Problem{Line: b.Line, What: title, Severity: Warning, Why: "is skipped: it has no active = 1"})
		return false
	case e.Bad: // reported; what else is wrong with the block is worth saying
		return true
	case e.Int() == 0:
		t.add(Problem{Line: e.Line, What: title + ": active", Value: "0", Severity: Warning, Why: "the block is skipped"})
	}
	return e.Int() == 1
}

// check is what nanny did: the interval is timeout, one failure takes a server out, and reentry/timeout successes
// in a row take it in again.
func (b *block) check(s *service) check {
	timeout := b.seconds("timeout", 10, "check.interval", "check.timeout")
	reentry := b.seconds("reentry", 180, "check.rise")
	if reentry == 0 {
		reentry = 180 * time.Second
	}
	if e, _ := b.Get("timeout"); timeout == 0 {
		b.refuse(e, "must be at least 1: it is the check's interval")
		b.broken[b.path+"check"] = true
		timeout = time.Second
	}
	c := check{Interval: timeout, Timeout: timeout, Fall: 1, Rise: max(1, int(reentry/timeout))}
	send, expect := b.text("send", "", "check.send"), b.text("expect", "", "check.expect")
	regex := b.int("use_regex", 0, "check.regex") == 1
	_, program := b.Get("send_program")
	switch {
	case program: // the expected text is the program's, not the server's
		return c
	case send == "" && expect == "":
		if s.Protocol != "tcp" || *s.Port != 80 {
			return c
		}
		c.Send, c.Expect = "GET / HTTP/1.0\r\n\r\n", "HTTP"
	default:
		c.Send, c.Expect, c.Regex = b.unescape("send"), b.unescape("expect"), regex && expect != ""
	}
	c.Kind = "send_expect"
	if c.Expect == "*" && !c.Regex {
		c.Expect, c.Regex = ".", true // nanny's word for any byte
	}
	return c
}

func (b *block) unescape(key string) string {
	e, ok := b.take(key)
	if !ok {
		return ""
	}
	text, others := lvscf.Unescape(e.Values[0].Text)
	for _, o := range others {
		b.add(Problem{Line: e.Line, What: b.title + key, Value: o, Severity: Warning,
			Why: `is kept as it is: the sequences are \n \r \t \\ \' \"`})
	}
	return text
}

func (b *block) server(s *service, v *lvscf.Block) {
	title := b.title + v.Title()
	if !b.active(v, title) {
		return
	}
	at := fmt.Sprintf("%sservers[%d]", b.path, len(s.Servers))
	b.at[at], b.at[at+".name"] = position{v.Line, title}, position{v.Line, b.title + v.Kind}
	in := &block{translation: b.translation, Block: v, title: title + ": ", path: at + "."}
	sv := server{
		Name:    v.Name.Text,
		Address: in.addr("address", "address"),
		Weight:  in.int("weight", 1, "weight"),
	}
	if e, ok := in.take("port", "port"); ok {
		port := e.Int()
		sv.Port = &port
	}
	if sv.Weight == 0 {
		in.warn(at+".weight", strconv.Itoa(sv.Weight), "the server takes no new connections: pulse read 0 as 1, so write 1 if it should")
	}
	s.Servers = append(s.Servers, sv)
}
