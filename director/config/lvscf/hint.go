package lvscf

import "lvstun/director/config/nearest"

// foreign are words of other files that people put into lvs.cf.
var foreign = map[string]string{
	"expect_program": "only piranha-gui wrote it, and pulse refused it too",
	"nmask":          "only piranha-gui wrote it; the key is vip_nmask, in the virtual block",
	"method":         "only piranha-gui wrote it; the key is network, outside of all blocks",
}

// keepalived maps keepalived.conf's words to what lvs.cf has in their place, or to "".
var keepalived = map[string]string{
	"vrrp_instance": "primary, backup and backup_active", "vrrp_sync_group": "", "vrrp_script": "", "global_defs": "",
	"virtual_server": "virtual NAME {", "virtual_server_group": "fwmark", "real_server": "server NAME {",
	"sorry_server_inhibit": "", "virtual_ipaddress": "address, in the virtual block",
	"state": "", "interface": "the device after address", "virtual_router_id": "", "priority": "", "advert_int": "keepalive",
	"authentication": "", "auth_type": "", "auth_pass": "", "unicast_peer": "backup", "unicast_src_ip": "primary",
	"notify_master": "active_cmd", "notify_backup": "inactive_cmd",
	"delay_loop": "timeout", "lb_algo": "scheduler", "lvs_sched": "scheduler", "lb_kind": "network", "lvs_method": "network",
	"persistence_timeout": "persistent", "persistence_granularity": "pmask", "inhibit_on_failure": "quiesce_server",
	"hysteresis": "", "quorum": "", "quorum_up": "", "quorum_down": "", "alpha": "", "omega": "", "ops": "",
	"retry": "", "nb_get_retry": "", "delay_before_retry": "reentry", "connect_timeout": "timeout", "connect_port": "port",
	"HTTP_GET": "send and expect", "SSL_GET": "", "TCP_CHECK": "leaving send and expect out", "UDP_CHECK": "", "MISC_CHECK": "",
	"url": "send and expect", "status_code": "expect", "digest": "",
}

// unknownKey helps with a command that a block of this kind does not have.
func unknownKey(key, blockKind string) string {
	for _, other := range []struct{ kind, place string }{
		{"", "outside of all blocks"}, {"virtual", "in a virtual block"}, {"server", "in a server block"},
	} {
		if blockKind != other.kind && scope(other.kind)[key] != nil {
			return "it belongs " + other.place
		}
	}
	if why, ok := foreign[key]; ok {
		return why
	}
	if help := ofKeepalived(key); help != "" {
		return help
	}
	return nearest.Hint(key, Keys(blockKind))
}

func unknownBlock(kind string) string {
	if help := ofKeepalived(kind); help != "" {
		return help
	}
	return "known are virtual NAME {, failover NAME { and, in them, server NAME {"
}

func ofKeepalived(word string) string {
	here, known := keepalived[word]
	switch {
	case !known:
		return ""
	case here == "":
		return "it is a word of keepalived.conf, and lvs.cf has none like it"
	}
	return "it is a word of keepalived.conf; in lvs.cf it is " + here
}
