package config

import (
	"net/netip"
	"time"
)

// file is a configuration as written: what director.yaml decodes into and lvs.cf is translated into. Its keys are
// the keys of director.yaml. The values have the right types and nothing more; validate judges the rest.
type file struct {
	Name           string      `mapstructure:"name"`
	ClusterKeyFile string      `mapstructure:"cluster_key_file"`
	Heartbeat      heartbeat   `mapstructure:"heartbeat"`
	VIP            vipSection  `mapstructure:"vip"`
	Sync           *syncDaemon `mapstructure:"sync"`
	Sysctls        string      `mapstructure:"sysctls"`
	API            listener    `mapstructure:"api"`
	Web            listener    `mapstructure:"web"`
	Services       []service   `mapstructure:"services"`
}

type heartbeat struct {
	Paths    []path        `mapstructure:"paths"`
	Port     int           `mapstructure:"port"`
	Interval time.Duration `mapstructure:"interval"`
	Dead     time.Duration `mapstructure:"dead"`
}

type path struct {
	Local netip.Addr `mapstructure:"local"`
	Peer  netip.Addr `mapstructure:"peer"`
}

type vipSection struct {
	Lease time.Duration `mapstructure:"lease"`
}

type syncDaemon struct {
	Device string `mapstructure:"device"`
	ID     int    `mapstructure:"id"`
}

type listener struct {
	Listen string `mapstructure:"listen"`
}

type service struct {
	Name             string        `mapstructure:"name"`
	VIP              netip.Addr    `mapstructure:"vip"`
	Device           string        `mapstructure:"device"`
	Port             *int          `mapstructure:"port"`
	Protocol         string        `mapstructure:"protocol"`
	FWMark           int           `mapstructure:"fwmark"`
	Scheduler        string        `mapstructure:"scheduler"`
	Persistent       time.Duration `mapstructure:"persistent"`
	PersistenceMask  int           `mapstructure:"persistence_mask"`
	OnePacket        bool          `mapstructure:"one_packet"`
	Encapsulation    encapsulation `mapstructure:"encapsulation"`
	Check            check         `mapstructure:"check"`
	QuiesceOnFailure bool          `mapstructure:"quiesce_on_failure"`
	Register         *register     `mapstructure:"register"`
	Servers          []server      `mapstructure:"servers"`
}

type encapsulation struct {
	Type     string `mapstructure:"type"`
	Port     int    `mapstructure:"port"`
	Checksum string `mapstructure:"checksum"`
}

type check struct {
	Kind         string        `mapstructure:"kind"`
	Port         int           `mapstructure:"port"`
	Path         string        `mapstructure:"path"`
	Host         string        `mapstructure:"host"`
	ExpectStatus int           `mapstructure:"expect_status"`
	ExpectBody   string        `mapstructure:"expect_body"`
	Send         string        `mapstructure:"send"`
	Expect       string        `mapstructure:"expect"`
	Regex        bool          `mapstructure:"regex"`
	Interval     time.Duration `mapstructure:"interval"`
	Timeout      time.Duration `mapstructure:"timeout"`
	Rise         int           `mapstructure:"rise"`
	Fall         int           `mapstructure:"fall"`
}

type register struct {
	From      []netip.Prefix `mapstructure:"from"`
	MaxWeight int            `mapstructure:"max_weight"`
}

type server struct {
	Name    string     `mapstructure:"name"`
	Address netip.Addr `mapstructure:"address"`
	Port    *int       `mapstructure:"port"` // absent: the service's
	Weight  int        `mapstructure:"weight"`
}

// preset is implemented by what starts with defaults, so that a key left out keeps them and a zero that is written
// is seen as one. Together these methods are every default there is, but for those that follow from other keys:
// a check's kind (see checkSpec), a server's name, which is its address, and the director's, which is the host's.
type preset interface{ preset() }

func (f *file) preset() {
	*f = file{
		ClusterKeyFile: "/etc/lvstun/cluster.key",
		Heartbeat:      heartbeat{Port: 539, Interval: 100 * time.Millisecond, Dead: 300 * time.Millisecond},
		VIP:            vipSection{Lease: 2 * time.Second},
		Sysctls:        string(KeepSysctls),
		API:            listener{Listen: ":3637"},
		Web:            listener{Listen: "127.0.0.1:3636"},
	}
}

func (s *service) preset() {
	*s = service{
		Protocol:      "tcp",
		Scheduler:     "wlc",
		Encapsulation: encapsulation{Type: "ipip", Checksum: "none"},
		Check:         check{Interval: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 2},
	}
}

func (r *register) preset() { *r = register{MaxWeight: 100} }

func (s *server) preset() { *s = server{Weight: 1} }
