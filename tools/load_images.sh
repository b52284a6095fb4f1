#!/bin/sh
# Loads images into the local cluster that kubectl talks to: load_images.sh IMAGE...
# Knows kind, k3d and minikube; any other cluster pulls from a registry. Without an image it only
# checks that all of this is possible, which is worth knowing before the images are built.
set -eu

archive=build/images.tar

refuse() { # refuse REASON NEXT
	echo "$1" >&2
	echo "$2" >&2
	exit 1
}

if command -v podman >/dev/null 2>&1; then
	engine=podman
elif command -v docker >/dev/null 2>&1; then
	engine=docker
else
	refuse "Neither podman nor docker is installed." "Install one of them: it builds the images."
fi
"$engine" info >/dev/null 2>&1 ||
	refuse "$engine is installed, but \`$engine info\` fails." "Start its service, or let your user reach it."
command -v kubectl >/dev/null 2>&1 ||
	refuse "kubectl is not installed." "Install it, and make a cluster: \`kind create cluster\`."

context=$(kubectl config current-context 2>/dev/null) ||
	refuse "kubectl knows no cluster." "Make one: kind create cluster, k3d cluster create or minikube start."
case "$context" in
kind-*) loader=kind ;;
k3d-*) loader=k3d ;;
minikube*) loader=minikube ;;
*)
	refuse "kubectl's context is $context, not one of kind, k3d or minikube." \
		"Push the images to a registry, and name it in image.registry."
	;;
esac
command -v "$loader" >/dev/null 2>&1 ||
	refuse "kubectl's context is $context, but $loader is not installed." "Install $loader."
kubectl get --raw=/readyz --request-timeout=20s >/dev/null 2>&1 ||
	refuse "The cluster $context does not answer." "Start it, or make another one with $loader."

[ $# -gt 0 ] || exit 0

mkdir -p build
if [ "$engine" = podman ]; then
	rm -f "$archive" # podman adds to an archive that is there
	podman save --multi-image-archive --output "$archive" "$@"
else
	docker save --output "$archive" "$@"
fi
case "$loader" in
kind) kind load image-archive "$archive" --name "${context#kind-}" ;;
k3d) k3d image import "$archive" --cluster "${context#k3d-}" ;;
minikube) minikube image load "$archive" --profile "$context" ;;
esac
rm -f "$archive"
