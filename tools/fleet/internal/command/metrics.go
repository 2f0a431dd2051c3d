package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"a3os.app/tools/fleet/internal/plane"
	"a3os.app/tools/internal/show"
)

const metricsHelp = `Tell what the registry knows in figures, of itself and of all tenants, in the text format of Prometheus. The alert rules of fleet observability are
about these.

  fleet metrics                              once
  fleet metrics --listen ` + plane.MetricsAddress + `      at /metrics, until it is interrupted, for a Prometheus of this machine that can't go to the registry itself,
                                             as on aws: whoever works on this machine can read them there`

func (a *app) metricsCommand() *cobra.Command {
	var listen string
	c := &cobra.Command{Use: "metrics", Short: "Tell what the registry knows in figures, for Prometheus", Long: metricsHelp, Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return a.metrics(c.Context(), listen) }}
	c.Flags().StringVar(&listen, "listen", "", "tell them at this address of the machine's loopback")
	return c
}

func (a *app) metrics(ctx context.Context, listen string) error {
	p, err := a.plane()
	if err != nil {
		return err
	}
	if listen == "" {
		if show.Terminal(a.raw) {
			return p.Metrics(ctx, a.out)
		}
		return p.Metrics(ctx, a.raw)
	}
	if !ofLoopback(listen) {
		return usageError{fmt.Errorf("--listen is %q: it is an address of this machine's loopback, as %s, for nobody is asked who they are", listen, plane.MetricsAddress)}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("listen where figures are told: %w; choose another --listen, or stop what listens there", err)
	}
	s := &http.Server{Handler: told(p.Metrics), ReadHeaderTimeout: time.Second}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if _, err := fmt.Fprintf(a.out, "Figures are told at http://%s/metrics until this is interrupted.\n", l.Addr()); err != nil {
		return errors.Join(err, l.Close())
	}
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// told answers with figures, one asker at a time. A page in somebody's browser that has its own name lead here is none of those.
func told(figures func(ctx context.Context, w io.Writer) error) http.Handler {
	const within = 10 * time.Second
	var mu sync.Mutex
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		if !ofLoopback(r.Host) {
			http.Error(w, "figures are told to this machine alone", http.StatusForbidden)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		ctx, cancel := context.WithTimeout(r.Context(), within)
		defer cancel()
		var text bytes.Buffer
		if err := figures(ctx, &text); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = w.Write(text.Bytes())
	})
	return mux
}

// ofLoopback says whether host:port is reached from this machine alone.
func ofLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	at, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && at.IsLoopback()
}
