package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"time"
)

// ready asks a URL whether it answers 200.
func ready(ctx context.Context, url string) int {
	const most = 4 * time.Second
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil) //nolint:gosec // whoever starts a container says what is asked in it
	if err != nil {
		fmt.Fprintf(os.Stderr, "accessos: %v: say what to ask: accessos ready http://HOST:PORT/readyz\n", err)
		return exitUsage
	}
	res, err := http.DefaultClient.Do(req) //nolint:gosec // as above
	if err != nil {
		fmt.Fprintf(os.Stderr, "accessos: it does not answer: %v\n", err)
		return exitFailed
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		fmt.Fprintf(os.Stderr, "accessos: it answers %s\n", res.Status)
		return exitFailed
	}
	return 0
}
