package server

import (
	"context"
	"net/http"

	"a3os.app/libs/fault"
	"a3os.app/libs/rpc"
	"a3os.app/libs/tlog"
)

// Prefix is below which the log lies in the layout of C2SP tlog-tiles, so that any client of that format can read and verify it.
const Prefix = "/audit/v1/log/"

const mayVerify = "audit.verify"

// Routes are the log as tlog-tiles has it: `checkpoint`, `tile/<L>/<N>[.p/<W>]`, `tile/entries/<N>[.p/<W>]`. They ask for a token of
// the tenant with the permission to verify, as LogService does. That entries were read
// goes on the record; hashes tell nothing. Nothing of them may be kept on the way: entries are the record.
func (s *Server) Routes() []rpc.Route {
	return []rpc.Route{
		{Pattern: "GET " + Prefix + tlog.CheckpointPath, Permission: mayVerify, Serve: s.checkpoint},
		{Pattern: "GET " + Prefix + "tile/{path...}", Permission: mayVerify, Serve: s.tile("tile/")},
		{Pattern: "GET " + Prefix + "tile/entries/{path...}", Permission: mayVerify, AccessData: true, Serve: s.tile("tile/entries/")},
	}
}

func (s *Server) checkpoint(w http.ResponseWriter, r *http.Request) error {
	return reply(w, r, "text/plain; charset=utf-8", func(ctx context.Context) ([]byte, error) {
		h, err := s.tenant.Newest(ctx)
		return []byte(h.Note), err
	})
}

func (s *Server) tile(below string) func(w http.ResponseWriter, r *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		return reply(w, r, "application/octet-stream", func(ctx context.Context) ([]byte, error) {
			t, err := tlog.ParseTile(below + r.PathValue("path"))
			if err != nil {
				return nil, fault.Wrap(fault.NotFound, err, "%v", err)
			}
			return s.tenant.Tile(ctx, t)
		})
	}
}

func reply(w http.ResponseWriter, r *http.Request, contentType string, read func(ctx context.Context) ([]byte, error)) error {
	if err := wholeLog(r.Context()); err != nil {
		return err
	}
	body, err := read(r.Context())
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, err = w.Write(body)
	return err
}
