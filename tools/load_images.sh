#!/bin/sh
# Loads Simile's images into the local cluster that kubectl talks to: load_images.sh TAG
# Knows kind, k3d and minikube; any other cluster pulls from a registry.
set -eu

archive=build/images.tar
upload=localhost/simile-upload:$1
embedder=localhost/simile-embedder:$1
searcher=localhost/simile-searcher:$1

context=$(kubectl config current-context)
case "$context" in
kind-* | k3d-* | minikube*) ;;
*)
	echo "kubectl's context is $context, not one of kind, k3d or minikube." >&2
	echo "Push the images to a registry, and name it in image.registry." >&2
	exit 1
	;;
esac

mkdir -p build
if command -v podman >/dev/null 2>&1; then
	rm -f "$archive" # podman adds to an archive that is there
	podman save --multi-image-archive --output "$archive" "$upload" "$embedder" "$searcher"
else
	docker save --output "$archive" "$upload" "$embedder" "$searcher"
fi
case "$context" in
kind-*) kind load image-archive "$archive" --name "${context#kind-}" ;;
k3d-*) k3d image import "$archive" --cluster "${context#k3d-}" ;;
*) minikube image load "$archive" --profile "$context" ;;
esac
rm -f "$archive"
