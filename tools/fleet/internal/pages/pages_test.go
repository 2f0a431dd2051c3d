package pages_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/pages"
)

// lists answers a list of so many releases, two a page, and keeps what it was asked. It fails at the page that begins after failing.
type lists struct {
	of      int
	failing string
	asked   []string
}

func (l *lists) ListReleases(_ context.Context, req *registryv1.ListReleasesRequest, _ ...grpc.CallOption) (*registryv1.ListReleasesResponse, error) {
	l.asked = append(l.asked, fmt.Sprintf("%d after %q", req.GetPageSize(), req.GetPageToken()))
	if l.failing != "" && req.GetPageToken() == l.failing {
		return nil, status.Error(codes.NotFound, "it went")
	}
	after, _ := strconv.Atoi(req.GetPageToken())
	res := &registryv1.ListReleasesResponse{}
	for i := after; i < min(after+2, l.of); i++ {
		res.Releases = append(res.Releases, &registryv1.Release{Name: strconv.Itoa(i)})
	}
	if after+2 < l.of {
		res.NextPageToken = strconv.Itoa(after + 2)
	}
	return res, nil
}

func TestAllPagesAreReadInOrder(t *testing.T) {
	for of, asked := range map[int][]string{
		0: {`7 after ""`},
		2: {`7 after ""`},
		5: {`7 after ""`, `7 after "2"`, `7 after "4"`},
	} {
		l, req := &lists{of: of}, &registryv1.ListReleasesRequest{PageSize: 7}
		all, err := pages.All(t.Context(), l.ListReleases, req, (*registryv1.ListReleasesResponse).GetReleases)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range all {
			if r.GetName() != strconv.Itoa(i) {
				t.Errorf("%d of %d is %s", i, of, r.GetName())
			}
		}
		if len(all) != of || !slices.Equal(l.asked, asked) {
			t.Errorf("%d of %d releases, asked for %q, want %q", len(all), of, l.asked, asked)
		}
		if req.GetPageToken() != "" {
			t.Errorf("the caller's request was changed: it asks for the page after %q", req.GetPageToken())
		}
	}
}

func TestWhoHasSeenEnoughAsksForNoMore(t *testing.T) {
	l := &lists{of: 9}
	for r, err := range pages.Each(t.Context(), l.ListReleases, &registryv1.ListReleasesRequest{}, (*registryv1.ListReleasesResponse).GetReleases) {
		if err != nil {
			t.Fatal(err)
		}
		if r.GetName() == "1" {
			break
		}
	}
	if len(l.asked) != 1 {
		t.Errorf("asked for %q, the first page was enough", l.asked)
	}
}

func TestListThatFailsHalfwayIsNoList(t *testing.T) {
	l := &lists{of: 9, failing: "4"}
	all, err := pages.All(t.Context(), l.ListReleases, &registryv1.ListReleasesRequest{}, (*registryv1.ListReleasesResponse).GetReleases)
	var known *fault.Error
	if all != nil || !errors.As(err, &known) || known.Kind != fault.NotFound {
		t.Errorf("%d releases and %v, want none and the registry's refusal", len(all), err)
	}
	if len(l.asked) != 3 {
		t.Errorf("asked for %q, want an end at the third", l.asked)
	}
}
