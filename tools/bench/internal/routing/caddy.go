package routing

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// caddy is a Caddy server with the routes of as many hosts.
type caddy struct {
	cmd          *exec.Cmd
	admin, front string
	client       *http.Client
	paths        []string
}

// caddyRoute leads paths of a host to the upstream (https://caddyserver.com/docs/json/apps/http/servers/routes/).
func caddyRoute(id, host, upstream string, paths []string) map[string]any {
	return map[string]any{"@id": id, "match": []any{map[string]any{"host": []string{host}, "path": paths}}, "terminal": true,
		"handle": []any{map[string]any{"handler": "reverse_proxy", "upstreams": []any{map[string]any{"dial": upstream}}}}}
}

func hostOf(i int) string { return fmt.Sprintf("t%05d.localhost", i) }

func newCaddy(ctx context.Context, cfg Config, dir, program, upstream string) (*caddy, error) {
	u, err := url.Parse(upstream)
	if err != nil {
		return nil, err
	}
	c := &caddy{client: &http.Client{}, paths: []string{"/steady*"}}
	for _, addr := range []*string{&c.admin, &c.front} {
		if *addr, err = freeAddress(); err != nil {
			return nil, err
		}
	}
	routes := make([]any, 0, cfg.Routes)
	for i := range cfg.Routes {
		routes = append(routes, caddyRoute(fmt.Sprintf("r%d", i), hostOf(i), u.Host, []string{"/steady*"}))
	}
	text, err := json.Marshal(map[string]any{"admin": map[string]any{"listen": c.admin, "config": map[string]any{"persist": false}},
		"logging": map[string]any{"logs": map[string]any{"default": map[string]any{"level": "ERROR"}}},
		"apps": map[string]any{"http": map[string]any{"servers": map[string]any{"front": map[string]any{"listen": []string{c.front},
			"automatic_https": map[string]any{"disable": true}, "routes": routes}}}}})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "caddy.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, err
	}
	c.cmd = exec.CommandContext(ctx, program, "run", "--config", file) //nolint:gosec // found on this machine
	c.cmd.Env = []string{"HOME=" + dir, "XDG_DATA_HOME=" + dir, "XDG_CONFIG_HOME=" + dir}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	ctx, cancel := context.WithTimeout(ctx, giveUp)
	defer cancel()
	for {
		if there, err := c.leads(ctx, c.steady()); err == nil && there {
			return c, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			c.close()
			return nil, fmt.Errorf("it does not serve: %w", context.Cause(ctx))
		}
	}
}

func (c *caddy) close() {
	c.client.CloseIdleConnections()
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

func (c *caddy) steady() string { return "/steady" }

// change replaces the paths of one route, which is the least that the API can be told.
func (c *caddy) change(ctx context.Context, path string) error {
	c.paths = []string{"/steady*", path}
	text, err := json.Marshal(c.paths)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPatch, "http://"+c.admin+"/id/r0/match/0/path", bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	said, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("the admin API answered %s: %s", res.Status, said)
	}
	return err
}

// leads asks on a connection of its own for each server that Caddy starts: one that it ends closes its connections.
func (c *caddy) leads(ctx context.Context, path string) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.front+path, nil)
	if err != nil {
		return false, err
	}
	req.Host = hostOf(0)
	res, err := c.client.Do(req)
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	// Caddy answers an empty 200 where no route matches.
	return string(text) == answer, err
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback answers at once
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
