package plane

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
)

// doorAnswers asks whether anybody answers at the address at which people reach the plane, and no more: who is behind it is not held against a
// certificate, and nothing is told them.
func doorAnswers(ctx context.Context, address string) error {
	const most = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}} //nolint:gosec // see above
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if _, refused := errors.AsType[tls.AlertError](err); err == nil || refused {
		if conn != nil {
			_ = conn.Close()
		}
		return nil
	}
	return fmt.Errorf("nobody answers at %s: %w", address, err)
}
