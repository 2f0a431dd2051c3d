package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5"

	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"

	"a3os.app/libs/csvupload"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/pg"
	"a3os.app/libs/scope"
	"a3os.app/services/integrations/internal/store"
)

// ErrContent is returned for an upload that is wrong; its message names the lines.
var ErrContent = fault.Declare(fault.InvalidArgument, "CONTENT_WRONG", "the upload is wrong and nothing was taken")

// A run lasts a day at most before it is given up, and may read the upload it began with for that long. Of uploads that were replaced
// within the day the newest few are kept: a run that began with an older one fails and says so.
const (
	keepReplacedFor = 26 * time.Hour
	mostReplaced    = 8
)

// UploadContent stores what a csv integration reads, when all of it is right. What was there before stays for the run that reads it.
func (s *Server) UploadContent(ctx context.Context, req *connect.Request[integrationsv1.UploadContentRequest]) (*connect.Response[integrationsv1.Integration], error) {
	now, err := s.get(ctx, req.Msg.GetIntegrationId())
	if err != nil {
		return nil, err
	}
	if now.Connector != "csv" {
		return nil, fault.New(fault.FailedPrecondition, "the connector %s reads no uploaded content, only csv does", now.Connector)
	}
	sc, err := scope.InWorkspace(ctx)
	if err != nil {
		return nil, err
	}
	// Before the transaction: reading a great upload takes a second, and a connection is not to be held for it.
	if err := s.checkContent(ctx, now, req.Msg.GetContent()); err != nil {
		return nil, err
	}
	key := contentFolder(sc.Workspace, now.ID) + "/" + strings.ToLower(rand.Text()) + ".csv"
	var stored bool
	var useless []string
	res, err := pg.Deed(ctx, s.cfg.DB.Workspace, req.Msg, func(ctx context.Context, tx pgx.Tx) (*integrationsv1.Integration, error) {
		row, err := s.lock(ctx, tx, now.ID)
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(row.Settings, now.Settings) {
			return nil, ErrVersion
		}
		stored = true
		if _, err := s.cfg.Content.Put(ctx, key, bytes.NewReader(req.Msg.GetContent())); err != nil {
			return nil, fmt.Errorf("store the content: %w", err)
		}
		if useless, err = replaceContent(ctx, store.New(tx), row, sc.Workspace); err != nil {
			return nil, err
		}
		p := keep(row)
		p.ContentSize, p.ContentKey = int64(len(req.Msg.GetContent())), key
		return s.update(ctx, tx, row, p, "integrations.content.uploaded")
	})
	if err != nil {
		if stored {
			s.dropContents(context.WithoutCancel(ctx), key)
		}
		return nil, err
	}
	s.dropContents(ctx, useless...)
	return connect.NewResponse(res), nil
}

// checkContent refuses an upload that the integration's columns don't read to its end, and names what is wrong by line. Uploads are
// checked one after the other, so that memory is bounded by one, whoever sends how many.
func (s *Server) checkContent(ctx context.Context, row store.Integration, content []byte) error {
	settings, err := readSettings(row.Settings)
	if err != nil {
		return err
	}
	select {
	case s.checking <- struct{}{}:
		defer func() { <-s.checking }()
	case <-ctx.Done():
		return ctx.Err()
	}
	_, err = csvupload.Check(ctx, bytes.NewReader(content), settings.GetCsv())
	if bad, ok := csvupload.IsWrong(err); ok {
		return ErrContent.With("%s", bad.Error())
	}
	return err
}

// replaceContent notes that the integration's present upload is replaced, and answers those that are of no use any more.
func replaceContent(ctx context.Context, q *store.Queries, row store.Integration, workspace id.Workspace) ([]string, error) {
	if row.ContentSize > 0 {
		if err := q.KeepReplaced(ctx, store.KeepReplacedParams{IntegrationID: row.ID, ContentKey: contentKey(workspace, row)}); err != nil {
			return nil, fmt.Errorf("note the upload before: %w", err)
		}
	}
	useless, err := q.DropReplaced(ctx, store.DropReplacedParams{IntegrationID: row.ID, Before: time.Now().Add(-keepReplacedFor), Most: mostReplaced})
	if err != nil {
		return nil, fmt.Errorf("look for uploads of no use: %w", err)
	}
	return useless, nil
}

// dropContents deletes objects that no row names any more. One that stays is only dead weight.
func (s *Server) dropContents(ctx context.Context, keys ...string) {
	for _, key := range keys {
		if err := s.cfg.Content.Delete(ctx, key); err != nil {
			slog.WarnContext(ctx, "an upload that nobody needs is still there", "key", key, "error", err)
		}
	}
}

func contentFolder(workspace id.Workspace, integration id.Integration) string {
	return workspace.String() + "/" + integration.String()
}

// contentKey is where the integration's present upload lies.
func contentKey(workspace id.Workspace, row store.Integration) string {
	if row.ContentKey == "" {
		return contentFolder(workspace, row.ID) + "/content.csv"
	}
	return row.ContentKey
}
