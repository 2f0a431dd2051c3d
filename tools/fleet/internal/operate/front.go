package operate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Await returns when the set answers through the gateway.
func (f Front) Await(ctx context.Context) error {
	const most = 30 * time.Second
	if f.URL == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	client := f.client()
	defer client.CloseIdleConnections()
	// A gateway hears of a route within milliseconds: what takes longer than a moment takes much longer.
	const moment, soon, later = time.Second, 5 * time.Millisecond, 50 * time.Millisecond
	tick, began := time.NewTicker(soon), time.Now()
	defer tick.Stop()
	for {
		err := ask(ctx, client, f.URL)
		if err == nil {
			return nil
		}
		if time.Since(began) > moment {
			tick.Reset(later)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w; see `fleet plane status`", f.URL, err)
		case <-tick.C:
		}
	}
}

// Withdrawn returns when the gateway leads nobody to the set any more, or after a moment, and then says what people are told meanwhile: a registry or
// a database that was just started anew takes one to publish. Nobody gets in to what is stopped, so nothing depends on it.
func (f Front) Withdrawn(ctx context.Context) (detail string) {
	const most, every = 5 * time.Second, 20 * time.Millisecond
	if f.URL == "" {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	client := f.client()
	defer client.CloseIdleConnections()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := ask(ctx, client, f.URL)
		if answered, is := errors.AsType[answer](err); is && answered == http.StatusNotFound {
			return ""
		}
		select {
		case <-ctx.Done():
			return "the gateway has not heard of it yet: until then people are told that the set does not answer"
		case <-tick.C:
		}
	}
}

// Ask asks the set once, through the gateway, what anybody may. Where there is no such thing it refuses: it did not hear that the set is well.
func (f Front) Ask(ctx context.Context) error {
	const most = 10 * time.Second
	if f.URL == "" {
		return errors.New("its blueprint says nothing that anybody may ask a set (answers)")
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	client := f.client()
	defer client.CloseIdleConnections()
	return ask(ctx, client, f.URL)
}

// client reaches the gateway whatever its host names resolve to.
func (f Front) client() *http.Client {
	var roots *x509.CertPool
	if f.Roots != "" {
		var err error
		if roots, err = x509.SystemCertPool(); err != nil {
			roots = x509.NewCertPool()
		}
		roots.AppendCertsFromPEM([]byte(f.Roots))
	}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, f.Dial)
		},
	}}
}

func ask(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return answer(res.StatusCode)
	}
	return nil
}

// answer is the status of one that isn't well.
type answer int

func (a answer) Error() string {
	return fmt.Sprintf("it answers %d %s", int(a), http.StatusText(int(a)))
}
