package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"

	"lvstun/director"
	"lvstun/director/config"
	"lvstun/director/pair"
	"lvstun/director/trust"
)

// A reloader takes the configuration anew at every SIGHUP. A configuration
// that is refused is named, problem by problem, and changes nothing.
type reloader struct {
	cfg   *config.Config // the one in force
	load  func() (*config.Config, error)
	key   trust.ClusterKey
	pair  *pair.Pair
	core  *director.Director
	tuner *tuner
	log   *slog.Logger
}

func (r *reloader) run(ctx context.Context) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangup:
		}
		err := notify(daemon.SdNotifyReloading)
		if err := r.reload(ctx); err != nil {
			r.log.Error("the configuration stays as it was", "err", err)
		} else {
			r.log.Info("the configuration was reloaded")
		}
		if err := errors.Join(err, notify(daemon.SdNotifyReady)); err != nil {
			return err
		}
	}
}

func (r *reloader) reload(ctx context.Context) error {
	next, err := r.load()
	if errors.Is(err, errSaid) {
		return errors.New("it has the problems named above")
	}
	if err != nil {
		return err
	}
	own, err := localize(next)
	if err := errors.Join(err, fixed(r.cfg, next)); err != nil {
		return err
	}
	if err := r.pair.Reload(ctx, pairConfig(next, r.key)); err != nil {
		return err
	}
	r.core.Reload(next)
	r.tuner.follow(next, own)
	r.cfg = next
	return nil
}

// fixed says what differs between two configurations that only a restart can
// change.
func fixed(old, next *config.Config) error {
	var errs []error
	for _, f := range []struct{ what, old, next string }{
		{"cluster_key_file", old.ClusterKeyFile, next.ClusterKeyFile},
		{"api.listen", old.API, next.API},
		{"web.listen", old.Web, next.Web},
		{"sync", fmt.Sprint(old.Sync), fmt.Sprint(next.Sync)},
	} {
		if f.old != f.next {
			errs = append(errs, fmt.Errorf("%s changes from %s to %s: that needs a restart, which loses no connection", f.what, f.old, f.next))
		}
	}
	return errors.Join(errs...)
}
