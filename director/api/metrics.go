package api

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"lvstun/director/client"
)

// scrapes is how many may run at once: each reads the kernel's table.
const scrapes = 4

// metricsHandler serves the metrics of a director on a registry of its own.
func metricsHandler(status func() client.Status) http.Handler {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(
		collector{status},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: scrapes,
		ErrorHandling:       promhttp.ContinueOnError, // one bad value must not hide all others
	})
}

// collector makes the metrics of one status at each scrape; nothing is kept.
type collector struct {
	status func() client.Status
}

var (
	buildInfo = desc("build_info", "The version that runs; always 1.", "version")
	role      = desc("role", "1 for the role this director has.", "role")
	term      = desc("term", "Election term: it grows with every takeover.")
	vipHeld   = desc("vip_held", "1 if this director holds the VIP.", "vip", "device")
	problems  = desc("problems", "Things a person should look at.")
	drifts    = desc("setting_drifts_total", "Kernel settings that somebody had changed and that were set again.")
	leases    = desc("leases", "Real servers that registered themselves, by whether their lease runs.", "state")

	pathUp           = desc("heartbeat_path_up", "1 if the peer is heard on this path.", "local", "peer")
	pathSent         = desc("heartbeats_sent_total", "Heartbeats sent.", "local", "peer")
	pathReceived     = desc("heartbeats_received_total", "Proven heartbeats received.", "local", "peer")
	pathDropped      = desc("heartbeats_dropped_total", "Datagrams refused.", "local", "peer", "reason")
	requestsRefused  = desc("requests_refused_total", "Requests and connections the API refused: registrations, mostly.", "reason")
	weight           = desc("destination_weight", "Weight in IPVS; 0 quiesces. Absent if IPVS has it not.", "service", "rs", "address")
	destinationState = desc("destination_state", "1 for the state the real server has in the service.", "service", "rs", "address", "state")
	activeConns      = desc("destination_active_connections", "Established connections.", "service", "rs", "address")
	inactiveConns    = desc("destination_inactive_connections", "Connections in any other state.", "service", "rs", "address")
	destinationConns = desc("destination_connections_total", "Connections since IPVS had the destination.", "service", "rs", "address")
	destinationBytes = desc("destination_in_bytes_total", "Bytes towards the real server.", "service", "rs", "address")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("lvstun_director_"+name, help, labels, nil)
}

// Describe sends what Collect may send.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		buildInfo, role, term, vipHeld, problems, drifts, leases, pathUp, pathSent, pathReceived, pathDropped, requestsRefused,
		weight, destinationState, activeConns, inactiveConns, destinationConns, destinationBytes,
	} {
		ch <- d
	}
}

// Collect sends the metrics of the status as it is now.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels []string) {
		m, err := prometheus.NewConstMetric(d, kind, v, labels...)
		if err != nil { // a label that is not UTF-8
			m = prometheus.NewInvalidMetric(d, err)
		}
		ch <- m
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) { send(d, prometheus.GaugeValue, v, labels) }
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		send(d, prometheus.CounterValue, float64(v), labels)
	}
	s := c.status()
	gauge(buildInfo, 1, s.Version)
	gauge(role, 1, s.Role)
	gauge(term, float64(s.Term))
	gauge(problems, float64(len(s.Problems)))
	counter(drifts, s.Drifts)
	for _, v := range s.VIPs {
		gauge(vipHeld, one(v.Held), v.Addr.String(), v.Device)
	}
	gone := 0
	for _, l := range s.Leases {
		if l.Gone {
			gone++
		}
	}
	gauge(leases, float64(len(s.Leases)-gone), "running")
	gauge(leases, float64(gone), "gone")
	for _, p := range s.Pair.Paths {
		path := []string{p.Local.String(), p.Peer.String()}
		gauge(pathUp, one(p.State == client.PathUp), path...)
		counter(pathSent, p.Sent, path...)
		counter(pathReceived, p.Received, path...)
		for reason, n := range p.Dropped {
			counter(pathDropped, n, path[0], path[1], reason)
		}
	}
	for reason, n := range s.Counters {
		counter(requestsRefused, n, reason)
	}
	for _, svc := range s.Services {
		for _, d := range svc.Destinations {
			labels := []string{svc.Name, d.Name, d.Address.String()}
			gauge(destinationState, 1, append(labels, d.State)...)
			if !d.InUse {
				continue
			}
			gauge(weight, float64(d.Weight), labels...)
			gauge(activeConns, float64(d.ActiveConns), labels...)
			gauge(inactiveConns, float64(d.InactiveConns), labels...)
			counter(destinationConns, d.Stats.Conns, labels...)
			counter(destinationBytes, d.Stats.InBytes, labels...)
		}
	}
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
