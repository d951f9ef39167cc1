package guard

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Bodies of messages as a kernel sent them (6.1).
var (
	newGeneration = []byte{
		0, 0, 0, 0x12, // nfgenmsg
		8, 0, 1, 0, 0, 0, 0x12, 0x34, // NFTA_GEN_ID
		8, 0, 2, 0, 0, 0, 0, 7, // NFTA_GEN_PROC_PID
		8, 0, 3, 0, 'n', 'f', 't', 0, // NFTA_GEN_PROC_NAME
	}
	oursDeleted = []byte{
		1, 0, 0, 0x12, // nfgenmsg of family inet
		11, 0, 1, 0, 'l', 'v', 's', 't', 'u', 'n', 0, 0, // NFTA_TABLE_NAME
	}
)

func TestParseGeneration(t *testing.T) {
	if id, err := parseGeneration(newGeneration); err != nil || id != 0x1234 {
		t.Errorf("%#x, %v", id, err)
	}
	for name, data := range map[string][]byte{
		"nothing":      nil,
		"no attribute": newGeneration[:4],
		"another one":  append([]byte{0, 0, 0, 0}, newGeneration[12:]...),
		"too short":    {0, 0, 0, 0, 6, 0, 1, 0, 1, 2, 0, 0},
		"cut off":      newGeneration[:10],
	} {
		if id, err := parseGeneration(data); err == nil {
			t.Errorf("%s: %#x and no error", name, id)
		}
	}
}

func TestConcernsUs(t *testing.T) {
	message := func(kind uint16, data []byte) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind)}, Data: data}
	}
	changed := func(at int, to byte) []byte {
		data := append([]byte(nil), oursDeleted...)
		data[at] = to
		return data
	}
	for _, test := range []struct {
		name    string
		message netlink.Message
		want    bool
	}{
		{"our table", message(unix.NFT_MSG_DELTABLE, oursDeleted), true},
		{"our rule", message(unix.NFT_MSG_NEWRULE, oursDeleted), true},
		{"family ip", message(unix.NFT_MSG_DELTABLE, changed(0, unix.NFPROTO_IPV4)), false},
		{"another name", message(unix.NFT_MSG_DELTABLE, changed(8, 'x')), false},
		{"a longer name", message(unix.NFT_MSG_DELTABLE, []byte{1, 0, 0, 0, 12, 0, 1, 0, 'l', 'v', 's', 't', 'u', 'n', 's', 0}), false},
		{"a generation", message(unix.NFT_MSG_NEWGEN, oursDeleted), false},
		{"nothing", message(unix.NFT_MSG_DELTABLE, nil), false},
		{"no name", message(unix.NFT_MSG_DELTABLE, oursDeleted[:4]), false},
	} {
		if got := concernsUs(test.message); got != test.want {
			t.Errorf("%s: %t", test.name, got)
		}
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(newGeneration)
	f.Add(oursDeleted)
	f.Add([]byte{1, 0, 0, 0, 3, 0, 1, 0})
	f.Add([]byte{1, 0, 0, 0, 0xff, 0xff, 1, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		if id, err := parseGeneration(data); err != nil && id != 0 {
			t.Errorf("%d and %v", id, err)
		}
		if concernsUs(netlink.Message{Data: data}) && !strings.Contains(string(data), Name+"\x00") {
			t.Errorf("%x concerns us", data)
		}
	})
}

func TestExplain(t *testing.T) {
	for _, test := range []struct {
		errno error
		want  string
	}{
		{unix.EPERM, "the capability CAP_NET_ADMIN is missing"},
		{unix.EPROTONOSUPPORT, "modprobe nfnetlink"},
		{unix.EINVAL, "modprobe nf_tables"},
		{unix.EAFNOSUPPORT, "no family inet"},
		{unix.ENOENT, "nft_objref"},
		{unix.EOPNOTSUPP, "Linux 4.14"},
	} {
		cause := &netlink.OpError{Op: "receive", Err: test.errno}
		err := explain("replace table lvstun", fmt.Errorf("conn.Receive: %w", errors.Join(cause, cause)))
		if !strings.HasPrefix(err.Error(), "replace table lvstun: ") || !strings.Contains(err.Error(), test.want) || !errors.Is(err, test.errno) {
			t.Errorf("%v: %v", test.errno, err)
		}
	}
	if got, want := explain("read", errors.Join(unix.ENOMEM, unix.ENOMEM)).Error(), "read: cannot allocate memory"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestDeadline(t *testing.T) {
	if left := time.Until(deadline(t.Context())); left <= 0 || left > patience {
		t.Errorf("without one: %s", left)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if want, _ := ctx.Deadline(); !deadline(ctx).Equal(want) {
		t.Error("the caller's is not kept")
	}
}

func TestNothingIsAskedAfterTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := New().Apply(ctx, everything()); !errors.Is(err, context.Canceled) {
		t.Errorf("Apply: %v", err)
	}
	if _, err := New().Remove(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Remove: %v", err)
	}
}
