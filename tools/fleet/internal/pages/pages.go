// Package pages reads the registry's lists whole, page after page.
package pages

import (
	"context"
	"iter"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"a3os.app/libs/fault"
)

// A Request asks for a page: of the list's beginning, or after the page that its token came with.
type Request interface {
	proto.Message
	GetPageToken() string
}

// A Response has the token of the next page, empty where there is none.
type Response interface {
	GetNextPageToken() string
}

// Each goes through the items of all pages of list, a client's method, from the page that first asks for. A page is asked for when the one
// before it was gone through. An error of the registry ends it.
func Each[Q Request, S Response, T any](ctx context.Context, list func(context.Context, Q, ...grpc.CallOption) (S, error), first Q, items func(S) []T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		req := proto.CloneOf(first)
		for {
			res, err := list(ctx, req)
			if err != nil {
				var none T
				yield(none, fault.FromRPC(err))
				return
			}
			for _, item := range items(res) {
				if !yield(item, nil) {
					return
				}
			}
			next := res.GetNextPageToken()
			if next == "" {
				return
			}
			m := req.ProtoReflect()
			m.Set(m.Descriptor().Fields().ByName("page_token"), protoreflect.ValueOfString(next))
		}
	}
}

// All are the items of all pages, as Each goes through them.
func All[Q Request, S Response, T any](ctx context.Context, list func(context.Context, Q, ...grpc.CallOption) (S, error), first Q, items func(S) []T) ([]T, error) {
	var all []T
	for item, err := range Each(ctx, list, first, items) {
		if err != nil {
			return nil, err
		}
		all = append(all, item)
	}
	return all, nil
}
