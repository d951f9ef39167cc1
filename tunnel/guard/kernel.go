package guard

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// patience is for one exchange with the kernel, which answers in microseconds: an answer that does not come
// must not stop the caller.
const patience = 5 * time.Second

// nftKernel is nf_tables of the calling process's network namespace.
type nftKernel struct{}

var _ kernel = nftKernel{}

// ours names the table in requests.
var ours = &nftables.Table{Name: Name, Family: nftables.TableFamilyINet}

// with runs do on a connection with a deadline.
func with(ctx context.Context, what string, do func(*nftables.Conn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		// A table of thousands of services is sent in one piece.
		return errors.Join(c.SetDeadline(deadline(ctx)), c.SetWriteBuffer(4<<20))
	}))
	if err != nil {
		return explain(what, err)
	}
	defer conn.CloseLasting()
	if err := do(conn); err != nil {
		return explain(what, err)
	}
	return nil
}

func deadline(ctx context.Context) time.Time {
	end := time.Now().Add(patience)
	if d, ok := ctx.Deadline(); ok && d.Before(end) {
		return d
	}
	return end
}

// generation asks for NFT_MSG_GETGEN, which the library does not know.
func (nftKernel) generation(ctx context.Context) (uint32, error) {
	const what = "ask nftables for its generation"
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return 0, explain(what, err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline(ctx)); err != nil {
		return 0, explain(what, err)
	}
	answers, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: netlink.Request},
		Data:   make([]byte, nfgenmsg),
	})
	if err != nil {
		return 0, explain(what, err)
	}
	if len(answers) != 1 {
		return 0, fmt.Errorf("%s: %d answers", what, len(answers))
	}
	id, err := parseGeneration(answers[0].Data)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	return id, nil
}

// nfgenmsg is the size of the header of every message (linux/netfilter/nfnetlink.h); its first byte is the
// family.
const nfgenmsg = 4

// parseGeneration reads the body of an NFT_MSG_NEWGEN.
func parseGeneration(data []byte) (uint32, error) {
	b, err := attribute(data, unix.NFTA_GEN_ID)
	if err == nil && len(b) != 4 {
		err = fmt.Errorf("generation of %d bytes", len(b))
	}
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint32(b), nil
}

// attribute returns the first attribute of a type in a message's body.
func attribute(data []byte, kind uint16) ([]byte, error) {
	if len(data) < nfgenmsg {
		return nil, fmt.Errorf("message of %d bytes", len(data))
	}
	ad, err := netlink.NewAttributeDecoder(data[nfgenmsg:])
	if err != nil {
		return nil, err
	}
	for ad.Next() {
		if ad.Type() == kind {
			return ad.Bytes(), nil
		}
	}
	return nil, errors.Join(ad.Err(), fmt.Errorf("message without attribute %d", kind))
}

func (nftKernel) read(ctx context.Context) (state, error) {
	s := state{things: map[string][]string{}}
	err := with(ctx, "read table "+Name, func(conn *nftables.Conn) error {
		_, err := conn.ListTableOfFamily(Name, nftables.TableFamilyINet)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		s.present = true
		if err := readChains(conn, s.things); err != nil {
			return err
		}
		if err := readSets(conn, s.things); err != nil {
			return err
		}
		s.counts, err = readObjects(conn, s.things)
		return err
	})
	return s, err
}

func readChains(conn *nftables.Conn, things map[string][]string) error {
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return err
	}
	for _, c := range chains {
		if c.Table.Name != Name {
			continue
		}
		things[ofChain+c.Name] = []string{kindOf(c)}
		rules, err := conn.GetRules(ours, c)
		if err != nil {
			return err
		}
		for _, r := range rules {
			things[ofRules+c.Name] = append(things[ofRules+c.Name], fingerprint(r.Exprs))
		}
	}
	return nil
}

// kindOf is chain.kind for a chain as the kernel tells it.
func kindOf(c *nftables.Chain) string {
	if c.Hooknum == nil || c.Priority == nil || c.Policy == nil {
		return "without a hook"
	}
	if c.Type != nftables.ChainTypeFilter || *c.Policy != nftables.ChainPolicyAccept {
		return fmt.Sprintf("type %s hook %d priority %d; policy %d;", c.Type, *c.Hooknum, *c.Priority, *c.Policy)
	}
	return chain{hook: c.Hooknum, priority: *c.Priority}.kind()
}

func readSets(conn *nftables.Conn, things map[string][]string) error {
	sets, err := conn.GetSets(ours)
	if err != nil {
		return err
	}
	for _, s := range sets {
		if s.Anonymous {
			continue // it is a part of a rule, and goes with it
		}
		read := set{of: s.KeyType}
		elements, err := conn.GetSetElements(s)
		if err != nil {
			return err
		}
		for _, e := range elements {
			read.keys = append(read.keys, e.Key)
		}
		slices.SortFunc(read.keys, bytes.Compare)
		things[ofType+s.Name] = []string{s.KeyType.Name}
		things[ofSet+s.Name] = read.elements()
	}
	return nil
}

func (nftKernel) counts(ctx context.Context) (counts map[string]Count, err error) {
	err = with(ctx, "read the counters of table "+Name, func(conn *nftables.Conn) error {
		counts, err = readObjects(conn, map[string][]string{})
		return err
	})
	return counts, err
}

// readObjects puts the names of the counters into things.
func readObjects(conn *nftables.Conn, things map[string][]string) (map[string]Count, error) {
	objects, err := conn.GetNamedObjects(ours)
	if err != nil {
		return nil, err
	}
	counts := map[string]Count{}
	for _, o := range objects {
		if o, ok := o.(*nftables.NamedObj); ok {
			if c, ok := o.Obj.(*expr.Counter); ok {
				things[ofCounter+o.Name] = []string{"present"}
				counts[o.Name] = Count{Packets: c.Packets, Bytes: c.Bytes}
			}
		}
	}
	return counts, nil
}

// replace keeps the table's counters, so that they lose nothing, and its chains where they hook as they
// should: while a chain is evaluated the kernel stays in one generation of the rules, but a packet that is
// on its way from a new chain to the one it replaces could pass between both (net/netfilter/
// nf_tables_core.c, nft_do_chain).
func (nftKernel) replace(ctx context.Context, have state, t table, counts map[string]Count) error {
	return with(ctx, "replace table "+Name, func(conn *nftables.Conn) error {
		conn.AddTable(ours)
		if have.present {
			conn.FlushTable(ours) // of its rules, which hold the rest
		}
		for _, name := range have.named(ofSet) {
			conn.DelSet(&nftables.Set{Table: ours, Name: name})
		}
		wanted := t.things()
		for _, name := range have.named(ofChain) {
			if !slices.Equal(have.things[ofChain+name], wanted[ofChain+name]) {
				conn.DelChain(&nftables.Chain{Table: ours, Name: name})
			}
		}
		for _, name := range have.named(ofCounter) {
			if !slices.Contains(t.counters, name) {
				conn.DeleteObject(counterObject(name, Count{}))
			}
		}
		for _, name := range t.counters {
			if _, found := have.counts[name]; !found {
				conn.AddObj(counterObject(name, counts[name]))
			}
		}
		if err := addSets(conn, t.sets); err != nil {
			return err
		}
		addChains(conn, t.chains)
		return conn.Flush()
	})
}

func counterObject(name string, c Count) *nftables.NamedObj {
	return &nftables.NamedObj{Table: ours, Name: name, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{Packets: c.Packets, Bytes: c.Bytes}}
}

// elementsAtOnce keep an attribute, which has 16 bits for its length, below 64 KiB.
const elementsAtOnce = 500

func addSets(conn *nftables.Conn, sets []set) error {
	for _, s := range sets {
		target := &nftables.Set{Table: ours, Name: s.name, KeyType: s.of}
		if s.of == nftables.TypeIFName {
			target.KeyByteOrder = binaryutil.NativeEndian // for nft(8), which else cannot print it
		}
		if err := conn.AddSet(target, nil); err != nil {
			return err
		}
		for keys := range slices.Chunk(s.keys, elementsAtOnce) {
			var elements []nftables.SetElement
			for _, k := range keys {
				elements = append(elements, nftables.SetElement{Key: k})
			}
			if err := conn.SetAddElements(target, elements); err != nil {
				return err
			}
		}
	}
	return nil
}

// addChains adds rules to chains, and the chains that are not there.
func addChains(conn *nftables.Conn, chains []chain) {
	policy := nftables.ChainPolicyAccept
	for _, c := range chains {
		added := conn.AddChain(&nftables.Chain{Table: ours, Name: c.name, Type: nftables.ChainTypeFilter, Hooknum: c.hook, Priority: &c.priority, Policy: &policy})
		for _, r := range c.rules {
			conn.AddRule(&nftables.Rule{Table: ours, Chain: added, Exprs: r.exprs()})
		}
	}
}

func (nftKernel) remove(ctx context.Context) (removed bool, err error) {
	err = with(ctx, "delete table "+Name, func(conn *nftables.Conn) error {
		conn.DelTable(ours)
		err := conn.Flush()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		removed = err == nil
		return err
	})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return false, nil // a kernel without nftables has no table
	}
	return removed, err
}

// explain says what is missing. Without nf_tables, nfnetlink answers EINVAL to a question and EOPNOTSUPP to
// a transaction (net/netfilter/nfnetlink.c).
func explain(what string, err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		err = errno // a transaction repeats it for every message
	}
	hint := ""
	switch {
	case errors.Is(err, unix.EPERM):
		hint = ": the capability CAP_NET_ADMIN is missing"
	case errors.Is(err, unix.EPROTONOSUPPORT):
		hint = ": the kernel has no netfilter: modprobe nfnetlink"
	case errors.Is(err, unix.EINVAL):
		hint = ": the kernel has no nftables: modprobe nf_tables"
	case errors.Is(err, unix.EAFNOSUPPORT):
		hint = ": the kernel's nftables has no family inet (CONFIG_NF_TABLES_INET)"
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP):
		hint = ": the kernel's nftables lacks what the table is made of: modprobe -a nf_tables nft_counter nft_objref; TCP options need Linux 4.14"
	}
	return fmt.Errorf("%s: %w%s", what, err, hint)
}

// Watch calls changed whenever somebody, this program included, has changed something in our table or
// deleted it; also when the kernel had to drop such messages. It returns nil when ctx ends.
func Watch(ctx context.Context, changed func()) error {
	const what = "listen to nftables"
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return explain(what, err)
	}
	defer conn.Close()
	if err := conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return explain(what, err)
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	for {
		messages, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !errors.Is(err, unix.ENOBUFS):
			return explain(what, err)
		case err != nil || slices.ContainsFunc(messages, concernsUs):
			changed()
		}
	}
}

// concernsUs says whether a message is about our table. In every kind of message but that of a new
// generation, the name of the table is attribute 1 (linux/netfilter/nf_tables.h).
func concernsUs(m netlink.Message) bool {
	if m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN || len(m.Data) < nfgenmsg || m.Data[0] != unix.NFPROTO_INET {
		return false
	}
	name, err := attribute(m.Data, unix.NFTA_TABLE_NAME)
	return err == nil && string(name) == Name+"\x00"
}
